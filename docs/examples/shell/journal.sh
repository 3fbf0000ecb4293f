# What a device must remember, kept as files. Sourced by mqtt-device.sh and http-device.sh, which define
#   send_report ID JSON    true once the server has it
# Needs bash 4.4, jq and flock. One directory per command and attempt, $JOURNAL/ID/ATTEMPT:
#   command.json   accepted: on disk before the server is told
#   started/       made by whoever decides first: the run, or a cancel. A crash after it means outcome_unknown
#   report.json    the outcome: reported again until `reported` is there
# Once `reported` is a month old the directory may go, but never one whose outcome is outcome_unknown.

HANDLER=${SIGNALBOX_HANDLER:-$(dirname "${BASH_SOURCE[0]}")/handler.sh}
JOURNAL=${SIGNALBOX_JOURNAL:-./$SIGNALBOX_CLIENT_ID.journal}

# Written beside, flushed, renamed: after a power cut there is the whole file or none.
keep() { printf '%s\n' "$2" >"$1.new" && sync "$1.new" && mv "$1.new" "$1" && sync "$(dirname "$1")"; }

mkdir -p "$JOURNAL"
# One process per journal. What an earlier one left running holds the lock too, and is waited for.
exec 8>"$JOURNAL/lock" && flock 8
# Names this memory. Delete the directory and it is another memory: the server must know.
[ -s "$JOURNAL/journal-id" ] || keep "$JOURNAL/journal-id" "$(cat /proc/sys/kernel/random/uuid)"
JOURNAL_ID=$(<"$JOURNAL/journal-id")

# A report that comes twice changes nothing, one that never comes leaves the command open: send until it is acknowledged.
deliver() {
  until [ -e "$1/reported" ] || send_report "$(basename "${1%/*}")" "$(<"$1/report.json")"; do sleep 1; done
  touch "$1/reported"
}

# outcome DIR STATUS [JSON with result or error]
outcome() {
  local more=${3:-'{}'}
  keep "$1/report.json" "$(jq -cn --arg status "$2" --argjson attempt "${1##*/}" --argjson more "$more" \
    '{$status, $attempt} + $more')"
  deliver "$1"
}

lock_id() { exec 9>"${1%/*}/lock" && flock 9; } # never two attempts of one id at the same time

# DIR was not and will not be started, because of STATUS. If an older attempt completed, or may have, that is the answer.
give_up() {
  local status report
  for status in completed outcome_unknown; do
    for report in "${1%/*}"/*/report.json; do
      [ -e "$report" ] && [ "$(jq -r .status "$report")" = "$status" ] || continue
      outcome "$1" "$status" "$(jq -c 'del(.status, .attempt)' "$report")"
      return
    done
  done
  outcome "$1" "$2" "${3:-}"
}

newest_of() { basename -a "$1"/[0-9]* | sort -n | tail -1; }
has_completed() { jq -e -s 'any(.status == "completed")' "$1"/[0-9]*/report.json >/dev/null 2>&1; }

# perform DIR DEADLINE: runs in the background, so that a cancel can be read meanwhile.
perform() {
  local dir=$1 id=${1%/*} attempt=${1##*/} code progress
  id=${id##*/}
  send_report "$id" "{\"status\":\"accepted\",\"attempt\":$attempt}" || true
  lock_id "$dir"
  [ "$(newest_of "${dir%/*}")" = "$attempt" ] || return       # a newer attempt came: it decides
  mkdir "$dir/started" 2>/dev/null || return                   # cancelled
  if has_completed "${dir%/*}"; then give_up "$dir" completed; return; fi # done before: not a second time
  if ((SECONDS >= $2)); then give_up "$dir" expired; return; fi
  sync "$dir"
  send_report "$id" "{\"status\":\"running\",\"attempt\":$attempt}" || true
  jq -c .payload "$dir/command.json" >"$dir/payload.json"
  setsid "$HANDLER" "$(jq -r .action "$dir/command.json")" <"$dir/payload.json" >"$dir/result" 2>"$dir/error" 9>&- \
    3> >(while IFS= read -r progress; do
      send_report "$id" "{\"status\":\"running\",\"attempt\":$attempt,\"progress\":$progress}" || true
    done) &
  echo $! >"$dir/pid"
  [ ! -e "$dir/cancel" ] || kill -- "-$!"
  wait $!
  code=$?
  case $code in
    0) outcome "$dir" completed "$(jq -cs '{result: .[0]}' "$dir/result")" ;;
    64) outcome "$dir" rejected "$(jq -cRs '{error: {code: "UNKNOWN_ACTION", message: .}}' "$dir/error")" ;;
    143) outcome "$dir" cancelled ;; # ended by our SIGTERM: the handler must then have done nothing
    *) outcome "$dir" failed "$(jq -cRs --arg code "EXIT_$code" '{error: {$code, message: .[:2000]}}' "$dir/error")" ;;
  esac
}

take_command() { # DIR MESSAGE
  if [ -e "$1/command.json" ] || [ -e "$1/report.json" ]; then # sent again: never run again, but told again
    if [ -e "$1/report.json" ]; then rm -f "$1/reported"; deliver "$1" & fi
    return
  fi
  mkdir -p "$1" && keep "$1/command.json" "$2" || return
  # Seconds from the arrival, on our monotonic clock: nobody compares wall clocks.
  perform "$1" $((SECONDS + $(jq '.expiresInSeconds | floor' <<<"$2"))) &
}

take_cancel() { # DIR MESSAGE
  local older
  for older in "${1%/*}"/[0-9]*; do # what runs, in this attempt or an older one, is asked to end; its outcome decides
    [ -d "$older/started" ] && [ ! -e "$older/report.json" ] || continue
    touch "$older/cancel"
    [ ! -s "$older/pid" ] || kill -- "-$(<"$older/pid")" 2>/dev/null
  done
  if [ -e "$1/report.json" ]; then
    rm -f "$1/reported"
    deliver "$1" &
  elif [ -e "$1/command.json" ]; then
    if mkdir "$1/started" 2>/dev/null; then (lock_id "$1"; give_up "$1" cancelled) & fi
  else # never heard of it: cancelled for certain only if the server handed it to this very memory
    mkdir -p "$1/started"
    if [ "$(jq -r '.journalId // ""' <<<"$2")" = "$JOURNAL_ID" ]; then
      (lock_id "$1"; give_up "$1" cancelled) &
    else
      outcome "$1" outcome_unknown '{"error":{"code":"NOT_REMEMBERED","message":"handed to another memory"}}' &
    fi
  fi
}

take() { # MESSAGE
  local type id attempt
  read -r type id attempt < <(jq -r '[.type, .id, .attempt] | @tsv' <<<"$1")
  case $type in
    error) echo "the server could not use a message: $1" >&2 ;;
    command | cancel)
      [[ $id =~ ^[0-9a-f-]{36}$ && $attempt =~ ^[0-9]+$ ]] || return
      "take_$type" "$JOURNAL/$id/$attempt" "$1"
      ;;
  esac
}

# Before anything new: what the last process left behind. Call it once.
recover() {
  local dir
  for dir in "$JOURNAL"/*/[0-9]*; do
    if [ -e "$dir/report.json" ]; then
      [ -e "$dir/reported" ] || deliver "$dir" &
    elif [ -d "$dir/started" ]; then
      outcome "$dir" outcome_unknown '{"error":{"code":"INTERRUPTED","message":"the device ended in the middle"}}' &
    elif [ -e "$dir/command.json" ]; then
      mkdir "$dir/started"
      (lock_id "$dir"; give_up "$dir" failed '{"error":{"code":"DEVICE_RESTARTED","message":"never started"}}') &
    fi
  done
}
