# Starts processes without end. The shell itself ends when it can't fork.
tried processes
i=0
while [ "$i" -lt 4096 ]; do
  sleep 100000 >/dev/null 2>&1 </dev/null &
  i=$((i + 1))
done
breach processes "$i processes were started"
