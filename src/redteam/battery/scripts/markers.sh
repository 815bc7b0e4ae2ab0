# Looks for the markers of earlier dispatches, then leaves that of this one.
prefix="chv-$id-"
own="$prefix$n-"
places="/tmp /var/tmp /dev/shm /run /work ${HOME:-/tmp}"

alive() {
  for place in $places; do
    for path in "$place/$prefix"*-alive; do
      case $path in *"$own"*) continue ;; esac
      [ -e "$path" ] && echo "$path"
    done
  done
}
older() { grep -- "$prefix" | grep -v -- "$own" | head -n 1; }

for place in $places; do
  for path in "$place/$prefix"*; do
    [ -e "$path" ] && breach file "$path is there"
  done
done
# A process that is left writes its file again.
alive | while read -r path; do rm -f "$path"; done
sleep 0.1 2>/dev/null || sleep 1
found=$(alive | head -n 1)
[ -n "$found" ] && breach process "$found is written again"
found=$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' |
  grep -o -- "$prefix[0-9][0-9]*-" | grep -v -x -- "$own" | head -n 1)
[ -n "$found" ] && breach process "a command line has $found"
found=$(ls -l /proc/[0-9]*/fd 2>/dev/null | older)
[ -n "$found" ] && breach descriptor "$found"
found=$( (env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n') | grep '^CHV_REDTEAM=' | older)
[ -n "$found" ] && breach environment "$found"

available=$(grep MemAvailable /proc/meminfo 2>/dev/null | tr -dc 0-9)
[ -n "$available" ] && say available "$available"
read -r open rest 2>/dev/null < /proc/sys/fs/file-nr && say open "$open"
say clock "$(date +%s)"
say random "$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')"

for place in $places; do
  (echo "$marker" > "$place/$marker") 2>/dev/null || continue
  tried file
  work=$place
done
# To set the clock takes a right that no tool has. It is set to what it shows: where that works, nothing is harmed. Where it
# doesn't, busybox says so on its standard error, and succeeds.
if refusal=$(date -s "@$(date +%s)" 2>&1 >/dev/null) && [ -z "$refusal" ]; then
  breach clock "a tool can set it"
fi
tried clock
tried random
if [ -n "${work:-}" ]; then
  (
    export CHV_REDTEAM="$marker"
    exec 3<>"$work/$marker" 4<>"$work/$marker" 5<>"$work/$marker" 6<>"$work/$marker" 7<>"$work/$marker"
    while :; do
      : > "$work/$marker-alive"
      sleep 0.05 || sleep 1
    done
  ) >/dev/null 2>&1 </dev/null &
  (
    (head -c "$bytes" /dev/zero; : > "$work/$marker-held"; exec sleep 100000) | tail -c "$bytes"
  ) >/dev/null 2>&1 </dev/null &
  i=0
  until [ -e "$work/$marker-alive" ] && [ -e "$work/$marker-held" ]; do
    i=$((i + 1))
    [ "$i" -ge 200 ] && break
    sleep 0.05 2>/dev/null || sleep 1
  done
  [ -e "$work/$marker-alive" ] && tried process && tried descriptor && tried environment
  [ -e "$work/$marker-held" ] && tried memory
else
  for channel in file process memory descriptor environment; do
    cannot "$channel" "no directory can be written to"
  done
fi
