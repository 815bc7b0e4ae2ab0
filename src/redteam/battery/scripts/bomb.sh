# Leaves a process that acts after the tool has ended, and that only SIGKILL ends.
bomb='trap "" HUP INT TERM; while :; do echo ticking > /tmp/chv-redteam-bomb; sleep 0.1 || sleep 1; done'
if have setsid; then
  run setsid sh -c "$bomb" >/dev/null 2>&1 </dev/null &
else
  sh -c "$bomb" >/dev/null 2>&1 </dev/null &
fi
i=0
until [ -e /tmp/chv-redteam-bomb ] || [ "$i" -ge 50 ]; do
  i=$((i + 1))
  sleep 0.1 2>/dev/null || sleep 1
done
if [ -e /tmp/chv-redteam-bomb ]; then tried bomb; else cannot bomb "the process did not begin"; fi
