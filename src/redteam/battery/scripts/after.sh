# Checks after a reset that a plain tool finds no files of the flood, and can write.
for path in /tmp/chv-redteam-*; do
  [ -e "$path" ] && breach left "$path is there"
done
if (echo room > /tmp/chv-redteam-room) 2>/dev/null && [ "$(cat /tmp/chv-redteam-room)" = room ]; then
  tried write
else
  breach write "nothing can be written"
fi
if (sleep 0) 2>/dev/null; then tried process; else breach process "no process can be started"; fi
