# What a plain tool finds after a reset: nothing of the flood, and room.
for path in /tmp/chv-redteam-*; do
  [ -e "$path" ] && breach left "$path is there"
done
if (echo room > /tmp/chv-redteam-room) 2>/dev/null && [ "$(cat /tmp/chv-redteam-room)" = room ]; then
  tried write
else
  breach write "nothing can be written"
fi
if (sleep 0) 2>/dev/null; then tried process; else breach process "no process can be started"; fi
