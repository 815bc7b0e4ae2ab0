# Keeps the tool's own outputs open beyond its end, and writes to them.
(
  trap "" HUP INT TERM
  while :; do
    echo "$late"
    echo "$late" >&2
    sleep 0.1 || sleep 1
  done
) &
tried output
