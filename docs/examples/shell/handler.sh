#!/usr/bin/env bash
# The work itself: handler.sh ACTION, the payload on stdin. Replace it with yours.
#   exit 0   completed; stdout is the result, as JSON      exit 64   rejected: no such action
#   else     failed; stderr says why                       SIGTERM   a cancel: end without having done it
#   fd 3     progress, one JSON object per line
set -euo pipefail

case $1 in
  pick)
    payload=$(cat)
    echo "$payload" >>picked.log
    echo '{"picked":1}'
    ;;
  wait)
    seconds=$(jq .seconds)
    for ((done = 1; done <= seconds; done++)); do
      sleep 1
      echo "{\"done\":$done,\"total\":$seconds}" >&3
    done
    echo '{}'
    ;;
  *)
    echo "there is no action $1" >&2
    exit 64
    ;;
esac
