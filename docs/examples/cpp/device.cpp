// A Signalbox device on a microcontroller: ESP32, Arduino core, PubSubClient, ArduinoJson 7, Preferences (NVS).
//
// - PubSubClient sends the PUBACK as soon as the callback returns, whatever came of it. So the command is in NVS before the
//   callback returns; if it could not be written, we disconnect, and no PUBACK goes out.
// - NVS keeps the last (id, attempt) with its outcome, no more: register the client with {"maxInFlight":1}. Sent again, the last
//   command is not run again.
// - Therefore no journalId in the status: the server must not take the last command for the memory of all. What is on its way when
//   the connection breaks becomes outcome_unknown (or is sent again, if the action is registered as at_least_once).
// - `accepted` is reported once the command is in NVS: in the timeline one sees that it was really taken.
// - PubSubClient publishes at QoS 0 only: a report may be lost. The outcome is told at every connection, and five times.
#include <ArduinoJson.h>
#include <Preferences.h>
#include <PubSubClient.h>
#include <WiFi.h>

static const char CLIENT_ID[] = "pda-7";   // client id = user name
static const char CLIENT_KEY[] = "sbk_...";
static const char SERVER[] = "192.168.1.10";

static const char STATUS[] = "signalbox/v1/clients/%s/status";
static const char COMMANDS[] = "signalbox/v1/clients/%s/commands";
static const char REPLIES[] = "signalbox/v1/clients/%s/replies";
static const char REPORT[] = "signalbox/v1/clients/%s/commands/%s/status";

WiFiClient network;
PubSubClient mqtt(network);
Preferences nvs;

struct Last {
  char id[37];
  uint32_t attempt;
  char status[16];  // "accepted", "running", then the outcome; "" if there is none
} last;

// A command that was taken and is not started. The callback only notes it: publishing there would overwrite its buffer.
static JsonDocument command;
static bool waiting = false, cancelled = false, tell = false;
static uint32_t arrivedAt, toldAt, triedAt;
static int told = 0;

bool keep(const char* status) {
  strlcpy(last.status, status, sizeof last.status);
  return nvs.putBytes("last", &last, sizeof last) == sizeof last;  // one entry, written as a whole
}

bool publishJson(const char* topic, const JsonDocument& body, bool retain = false) {
  char payload[256];
  size_t length = serializeJson(body, payload, sizeof payload);
  return mqtt.publish(topic, reinterpret_cast<const uint8_t*>(payload), length, retain);
}

// Always with the attempt: without it, after a second one only `completed` would count.
void report(const char* id, uint32_t attempt, const char* status, const char* code = nullptr, const char* why = nullptr) {
  char topic[128];
  snprintf(topic, sizeof topic, REPORT, CLIENT_ID, id);
  JsonDocument body;
  body["status"] = status;
  body["attempt"] = attempt;
  if (code != nullptr) {
    body["error"]["code"] = code;
    body["error"]["message"] = why;
  }
  publishJson(topic, body);
}

void onMessage(char*, byte* payload, unsigned int length) {
  JsonDocument message;
  if (deserializeJson(message, payload, length) != DeserializationError::Ok) return;
  const char* type = message["type"] | "";
  if (strcmp(type, "error") == 0) Serial.println(message["message"] | "");  // what the server could not use
  const char* id = message["id"] | "";
  uint32_t attempt = message["attempt"] | 0;
  bool same = strcmp(id, last.id) == 0;
  if (strcmp(type, "command") == 0) {
    // Sent again: never run again. Done before: a newer attempt is answered `completed` without a run.
    if (same && attempt <= last.attempt) { tell = true; return; }
    bool done = same && strcmp(last.status, "completed") == 0;
    command = message;
    arrivedAt = millis();
    strlcpy(last.id, id, sizeof last.id);
    last.attempt = attempt;
    cancelled = false;
    waiting = !done;
    tell = true;
    told = 0;
    if (!keep(done ? "completed" : "accepted")) {
      last = {};
      waiting = tell = false;
      mqtt.disconnect();  // before the PUBACK: we do not have it
    }
  } else if (strcmp(type, "cancel") == 0) {
    if (same && waiting) cancelled = true;
    else if (same) tell = true;  // what became of it
    else report(id, attempt, "outcome_unknown", "NOT_REMEMBERED", "this device keeps the last command only");
  }
}

// The work. An error is {code, message} of `failed`.
bool pick(JsonVariantConst payload) {
  digitalWrite(LED_BUILTIN, HIGH);
  return !payload["order"].isNull();
}

void perform() {
  waiting = false;
  const char* action = command["action"] | "";
  // Seconds from the arrival on our own clock: this device knows no time of day.
  double expires = command["expiresInSeconds"];
  if (cancelled) keep("cancelled");
  else if ((millis() - arrivedAt) / 1000.0 >= expires) keep("expired");
  else if (strcmp(action, "pick") != 0) keep("rejected");
  else {
    keep("running");  // from here on a reset means outcome_unknown
    report(last.id, last.attempt, "running");
    keep(pick(command["payload"]) ? "completed" : "failed");
  }
  tell = true;
}

void tellLast() {
  tell = false;
  told++;
  toldAt = millis();
  if (last.status[0] == 0) return;
  if (strcmp(last.status, "rejected") == 0) report(last.id, last.attempt, "rejected", "UNKNOWN_ACTION", "not here");
  else if (strcmp(last.status, "failed") == 0) report(last.id, last.attempt, "failed", "NO_ORDER", "or it was reset");
  else report(last.id, last.attempt, last.status);
}

void connect() {
  triedAt = millis();
  // PubSubClient speaks 3.1.1 with clean session. state(): 4 bad key, 5 disabled or a foreign client id, 3 try later.
  if (!mqtt.connect(CLIENT_ID, CLIENT_ID, CLIENT_KEY)) return;
  char topic[128];
  JsonDocument body;
  body["state"] = "online";
  body["version"] = "1.0";
  snprintf(topic, sizeof topic, STATUS, CLIENT_ID);
  publishJson(topic, body, true);
  snprintf(topic, sizeof topic, REPLIES, CLIENT_ID);
  mqtt.subscribe(topic, 1);
  snprintf(topic, sizeof topic, COMMANDS, CLIENT_ID);
  mqtt.subscribe(topic, 1);  // QoS 1: at 0 a commands topic is refused. Zones and broadcasts come here too.
  tell = true;
}

void setup() {
  Serial.begin(115200);
  pinMode(LED_BUILTIN, OUTPUT);
  nvs.begin("signalbox");
  if (nvs.getBytes("last", &last, sizeof last) != sizeof last) last = {};
  if (strcmp(last.status, "running") == 0) keep("outcome_unknown");  // reset in the middle: nobody can tell
  if (strcmp(last.status, "accepted") == 0) keep("failed");          // never started; whether it has expired is not known
  WiFi.begin("ssid", "password");
  mqtt.setServer(SERVER, 1883);
  mqtt.setCallback(onMessage);
  mqtt.setKeepAlive(30);
  mqtt.setBufferSize(4096);  // the largest command that is taken: a larger one PubSubClient drops without a word
}

void loop() {
  if (!mqtt.connected() && millis() - triedAt > 2000) connect();
  mqtt.loop();
  if (!mqtt.connected()) return;
  if (tell || (told < 5 && millis() - toldAt > 60000)) tellLast();
  if (waiting) perform();
}
