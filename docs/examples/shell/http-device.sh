#!/usr/bin/env bash
# A device that cannot speak MQTT: a stream of server-sent events, reports by PUT. Nothing but curl:
#   SIGNALBOX_CLIENT_ID=pda-7 SIGNALBOX_CLIENT_KEY=sbk_... ./http-device.sh
# The stream names the journal and a command counts as delivered with our first report, which follows the journal:
# whatever breaks when, nothing runs twice and nothing is lost.
set -u
: "${SIGNALBOX_CLIENT_ID:?}" "${SIGNALBOX_CLIENT_KEY:?}"
api=${SIGNALBOX_URL:-http://127.0.0.1:3000}/api

call() { curl -sS -m 30 -H "@$JOURNAL/authorization" -H 'Content-Type: application/json' "$@"; }

# 2xx: committed. 400, 404, 413: understood and of no use; saying it again would not help. Anything else: again later.
send_report() {
  case $(call -o /dev/null -w '%{http_code}' -X PUT -d "$2" "$api/commands/$1/status") in
    2?? | 400 | 404 | 413) ;;
    *) return 1 ;;
  esac
}

. "$(dirname "$0")/journal.sh"
# In a file that only we can read: arguments are visible in the list of processes.
(umask 077 && echo "Authorization: Bearer $SIGNALBOX_CLIENT_KEY" >"$JOURNAL/authorization")
recover

trap 'exit 0' INT TERM
trap 'kill "${stream:-}" "${pings:-}" 2>/dev/null' EXIT
# Online means an open stream and a ping within 30 s.
while sleep 20; do
  call -o /dev/null -d "{\"state\":\"online\",\"version\":\"1.0\",\"journalId\":\"$JOURNAL_ID\"}" \
    "$api/clients/$SIGNALBOX_CLIENT_ID/ping"
done 8>&- &
pings=$!
while :; do
  # The server says something every 15 s: a stream silent for 45 s is dead, and is made anew.
  exec 3< <(exec curl -sSN --fail-with-body --speed-limit 1 --speed-time 45 -H "@$JOURNAL/authorization" \
    "$api/events/$SIGNALBOX_CLIENT_ID?journalId=$JOURNAL_ID" 8>&-)
  stream=$!
  while IFS= read -r line <&3; do
    case $line in data:*) take "${line#data:}" ;; esac
  done
  sleep 1
done
