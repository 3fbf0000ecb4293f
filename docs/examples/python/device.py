#!/usr/bin/env python3
"""A Signalbox device with a journal: effectively once across lost connections, restarts and crashes.

    SIGNALBOX_CLIENT_ID=pda-7 SIGNALBOX_CLIENT_KEY=sbk_... python3 device.py

Needs paho-mqtt, 1.x (Debian: python3-paho-mqtt) or 2.x. Replace the functions in ACTIONS with your work.
"""
import json
import os
import queue
import sqlite3
import threading
import time
import uuid

import paho.mqtt.client as mqtt

CLIENT_ID = os.environ["SIGNALBOX_CLIENT_ID"]
CLIENT_KEY = os.environ["SIGNALBOX_CLIENT_KEY"]
HOST = os.environ.get("MQTT_HOST", "127.0.0.1")
PORT = int(os.environ.get("MQTT_PORT", "1883"))
JOURNAL = os.environ.get("SIGNALBOX_JOURNAL", f"{CLIENT_ID}.sqlite")

STATUS = f"signalbox/v1/clients/{CLIENT_ID}/status"
COMMANDS = f"signalbox/v1/clients/{CLIENT_ID}/commands"
CONFIG = f"signalbox/v1/clients/{CLIENT_ID}/config"
REPLIES = f"signalbox/v1/clients/{CLIENT_ID}/replies"
BROADCAST = "signalbox/v1/broadcast/commands"


# ---- the work


class Rejected(Exception):
    """This device does not do that."""


class Cancelled(Exception):
    """Raised by an action that was asked to end and has done nothing (or undone it)."""


def pick(payload, cancel, progress):
    with open("picked.log", "a", encoding="utf-8") as log:
        log.write(json.dumps(payload) + "\n")
    return {"picked": 1}


def wait(payload, cancel, progress):
    seconds = payload["seconds"]
    for done in range(seconds):
        if cancel.wait(1):
            raise Cancelled()
        progress(done + 1, seconds)
    return {}


ACTIONS = {"pick": pick, "wait": wait}


# ---- the journal: what happened to each (id, attempt), on disk before anybody is told

to_report = queue.SimpleQueue()  # wakes the reporter
acknowledged = queue.SimpleQueue()  # the mids of PUBACKs

# accepted -> started -> an outcome (a status of a report). `superseded`: a newer attempt came first; nothing is told.
SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (
  id TEXT, attempt INTEGER, state TEXT NOT NULL, report TEXT, reported INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (id, attempt));
"""
lock = threading.RLock()  # of the journal: the network thread and the worker both use it
db = sqlite3.connect(JOURNAL, isolation_level=None, check_same_thread=False)
db.execute("PRAGMA locking_mode = EXCLUSIVE")  # one process per journal
db.execute("PRAGMA synchronous = FULL")
db.executescript(SCHEMA)
if not db.execute("SELECT id FROM journal").fetchone():
    db.execute("INSERT INTO journal VALUES (?)", [str(uuid.uuid4())])
JOURNAL_ID = db.execute("SELECT id FROM journal").fetchone()[0]  # a new file is a new memory, and a new name


def states(id):
    return dict(db.execute("SELECT attempt, state FROM attempts WHERE id = ? ORDER BY attempt", [id]))


def put(id, attempt, state, report=None):
    db.execute(
        "INSERT INTO attempts (id, attempt, state, report) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (id, attempt) DO UPDATE SET state = excluded.state, report = excluded.report, reported = 0",
        [id, attempt, state, report],
    )


def settle(id, attempt, status, **more):
    """The outcome, kept first, then reported until it is acknowledged."""
    with lock:
        put(id, attempt, status, json.dumps({"status": status, "attempt": attempt, **more}))
    to_report.put(None)


def tell_again(id, attempt):
    with lock:
        db.execute("UPDATE attempts SET reported = 0 WHERE id = ? AND attempt = ?", [id, attempt])
    to_report.put(None)


def give_up(id, attempt, status, **more):
    """Not started and never will be. Its report speaks for the id: what an older attempt did, or may have done, counts."""
    with lock:
        for decisive in ("completed", "outcome_unknown"):
            older = db.execute(
                "SELECT report FROM attempts WHERE id = ? AND attempt < ? AND state = ?", [id, attempt, decisive]
            ).fetchone()
            if older:
                return settle(id, **{**json.loads(older[0]), "attempt": attempt})
        settle(id, attempt, status, **more)


def recover():
    """Before anything new: what the last process left in the middle."""
    with lock:
        for id, attempt, state in db.execute(
            "SELECT id, attempt, state FROM attempts WHERE state IN ('accepted', 'started', 'waiting') ORDER BY attempt"
        ).fetchall():
            if state != "accepted":
                error = {"code": "INTERRUPTED", "message": "the device ended in the middle"}
                settle(id, attempt, "outcome_unknown", error=error)
            else:  # how long ago it was accepted, and so whether it has expired, cannot be known
                error = {"code": "DEVICE_RESTARTED", "message": "never started"}
                give_up(id, attempt, "failed", error=error)
    to_report.put(None)


# ---- what comes in. Runs in the network thread, and paho sends the PUBACK after it returned: the journal comes first.
# An exception (disk full, for instance) ends the program without a PUBACK: the server will ask again.

work = queue.PriorityQueue()  # (-priority, order of arrival, command, deadline)
running = {}  # id -> (attempt, Event): the one that runs, and how to ask it to end
arrivals = 0


def take_command(command):
    global arrivals
    id, attempt = command["id"], command["attempt"]
    with lock:
        known = states(id)
        if attempt in known:  # sent again: never run again, but an outcome is told again
            tell_again(id, attempt)
        elif any(newer > attempt for newer in known):
            put(id, attempt, "superseded")
        else:
            for older, state in known.items():
                if state == "accepted":
                    put(id, older, "superseded")
            put(id, attempt, "accepted")
            arrivals += 1
            # Seconds from the arrival, on our monotonic clock: nobody compares wall clocks.
            deadline = time.monotonic() + command["expiresInSeconds"]
            work.put((-command["priority"], arrivals, command, deadline))


def take_cancel(cancel):
    id, attempt = cancel["id"], cancel["attempt"]
    with lock:
        state = states(id).get(attempt)
        if id in running and running[id][0] <= attempt:
            running[id][1].set()  # what it makes of that is its outcome
        if state == "accepted" or (state is None and cancel.get("journalId") == JOURNAL_ID):
            give_up(id, attempt, "cancelled") if id not in running else put(id, attempt, "waiting")
        elif state is None:  # handed to another memory, or to none: who knows
            error = {"code": "NOT_REMEMBERED", "message": "handed to another memory"}
            settle(id, attempt, "outcome_unknown", error=error)
        else:
            tell_again(id, attempt)


# ---- what is done: one command after the other, so never two attempts of an id at the same time


def worker():
    while True:
        _, _, command, deadline = work.get()
        id, attempt, cancel = command["id"], command["attempt"], threading.Event()
        with lock:
            known = states(id)
            if known[attempt] != "accepted":
                continue  # cancelled or superseded meanwhile
            if "completed" in known.values() or time.monotonic() >= deadline:
                give_up(id, attempt, "expired")  # completed before: give_up says so
                continue
            put(id, attempt, "started")  # from here on a crash means outcome_unknown
            running[id] = (attempt, cancel)
        outcome = perform(command, cancel)
        with lock:
            del running[id]
            settle(id, attempt, **outcome)
            for newer, state in states(id).items():
                if state == "waiting":
                    give_up(id, newer, "cancelled")


def perform(command, cancel):
    id, attempt = command["id"], command["attempt"]

    def progress(done, total):
        send(id, {"status": "running", "attempt": attempt, "progress": {"done": done, "total": total}})

    send(id, {"status": "running", "attempt": attempt})
    try:
        if command["action"] not in ACTIONS:
            raise Rejected(command["action"])
        return {"status": "completed", "result": ACTIONS[command["action"]](command.get("payload"), cancel, progress)}
    except Rejected as error:
        return {"status": "rejected", "error": {"code": "UNKNOWN_ACTION", "message": str(error)}}
    except Cancelled:
        return {"status": "cancelled"}
    except Exception as error:  # whatever the action throws is its failure, not ours
        return {"status": "failed", "error": {"code": type(error).__name__, "message": str(error)[:8000]}}


# ---- what goes out

status_mid = None
zones = set()


def send(id, report):
    topic = f"signalbox/v1/clients/{CLIENT_ID}/commands/{id}/status"
    return client.publish(topic, json.dumps(report), qos=1).mid


def reporter():
    """One outcome after the other, each until its PUBACK: paho repeats it after a reconnect, we after a restart."""
    while True:
        to_report.get()
        with lock:
            rows = db.execute(
                "SELECT id, attempt, report FROM attempts WHERE report IS NOT NULL AND reported = 0 ORDER BY rowid"
            ).fetchall()
        for id, attempt, report in rows:
            mid = send(id, json.loads(report))
            while acknowledged.get() != mid:
                pass  # the PUBACK of a status or a progress
            with lock:
                db.execute(
                    "UPDATE attempts SET reported = 1 WHERE id = ? AND attempt = ? AND report = ?", [id, attempt, report]
                )


def on_connect(client, userdata, flags, code, *_):
    global status_mid
    if code != 0:  # 4 bad key, 5 disabled or a foreign client id, 3 the server's database is down: paho tries again
        print(f"refused: {code}", flush=True)
        return
    # The status first: the server must know the journal before it hands anything over.
    status = {"state": "online", "version": "1.0", "journalId": JOURNAL_ID}
    status_mid = client.publish(STATUS, json.dumps(status), qos=1, retain=True).mid


def on_publish(client, userdata, mid, *_):
    """A PUBACK: the server has committed it."""
    if mid == status_mid:
        zones.clear()  # clean session: subscriptions begin anew, and the retained config names our zones
        client.subscribe([(topic, 1) for topic in (COMMANDS, BROADCAST, CONFIG, REPLIES)])
    acknowledged.put(mid)  # no lock here: paho holds one of its own, which publish() needs


def on_subscribe(client, userdata, mid, codes, *_):
    if any(getattr(code, "value", code) >= 128 for code in codes):
        print("a subscription was refused: the server's log says why", flush=True)


def on_message(client, userdata, message):
    body = json.loads(message.payload)
    if message.topic == CONFIG:
        wanted = set(body["zones"])
        for zone in wanted - zones:
            client.subscribe(f"signalbox/v1/zones/{zone}/commands", 1)
        zones.clear()
        zones.update(wanted)  # a zone we lost is unsubscribed by the server
    elif message.topic == REPLIES:
        print(f"the server could not use a message: {body}", flush=True)
    elif body["type"] == "command":
        take_command(body)
    elif body["type"] == "cancel":
        take_cancel(body)


options = {"client_id": CLIENT_ID, "clean_session": True, "protocol": mqtt.MQTTv311}
if hasattr(mqtt, "CallbackAPIVersion"):  # paho 2.x
    options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION2
client = mqtt.Client(**options)
client.username_pw_set(CLIENT_ID, CLIENT_KEY)
client.reconnect_delay_set(1, 30)
client.on_connect, client.on_publish = on_connect, on_publish
client.on_subscribe, client.on_message = on_subscribe, on_message

recover()
threading.Thread(target=worker, daemon=True).start()
threading.Thread(target=reporter, daemon=True).start()
client.connect_async(HOST, PORT, keepalive=30)
client.loop_forever(retry_first_connection=True)
