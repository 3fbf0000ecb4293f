#!/usr/bin/env bash
# A device of mosquitto_sub and mosquitto_pub:
#   SIGNALBOX_CLIENT_ID=pda-7 SIGNALBOX_CLIENT_KEY=sbk_... ./mqtt-device.sh
# mosquitto_sub acknowledges before this script has read a line and cannot publish a status. So the server knows no journalId
# of this device: what is on its way when the connection breaks is outcome_unknown, unless the action is at_least_once.
# http-device.sh has neither weakness.
set -u
: "${SIGNALBOX_CLIENT_ID:?}" "${SIGNALBOX_CLIENT_KEY:?}"

# -P is visible in the list of processes. On a machine with other users write `-P sbk_...` into ~/.config/mosquitto_sub and
# ~/.config/mosquitto_pub instead.
login=(-h "${MQTT_HOST:-127.0.0.1}" -p "${MQTT_PORT:-1883}" -V mqttv311 -u "$SIGNALBOX_CLIENT_ID" -P "$SIGNALBOX_CLIENT_KEY")
topics=signalbox/v1/clients/$SIGNALBOX_CLIENT_ID

# A report connection (client id with ~): the subscriber stays connected. Exit code 0 means PUBACK: committed.
send_report() {
  timeout 30 mosquitto_pub "${login[@]}" -i "$SIGNALBOX_CLIENT_ID~$BASHPID" -q 1 -t "$topics/commands/$1/status" -m "$2"
}

. "$(dirname "$0")/journal.sh"
recover

trap 'exit 0' INT TERM
trap 'kill "${sub:-}" 2>/dev/null' EXIT
while :; do
  # -q 1: at QoS 0 a commands topic is refused. mosquitto_sub connects and subscribes again by itself; it ends if it is refused.
  exec 3< <(exec mosquitto_sub "${login[@]}" -i "$SIGNALBOX_CLIENT_ID" -k 30 -q 1 \
    -t "$topics/commands" -t "$topics/replies" -t signalbox/v1/broadcast/commands 8>&-)
  sub=$!
  while IFS= read -r message <&3; do take "$message"; done
  sleep 1
done
