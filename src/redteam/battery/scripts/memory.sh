# Takes more memory than the guest has.
total=$(grep MemTotal /proc/meminfo 2>/dev/null | tr -dc 0-9)
if [ -z "$total" ]; then
  cannot memory "the guest does not say how much memory it has"
else
  tried memory
  if head -c "$((total * 1024 + 67108864))" /dev/zero | tail -c "$((total * 1024 + 67108864))" >/dev/null 2>&1; then
    breach memory "a tool held more than the guest's $total KiB"
  fi
fi
