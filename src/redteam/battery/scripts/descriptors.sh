# Descriptors of the dispatcher: inherited ones, and those of other processes.
for path in "/proc/$$/fd"/*; do
  case $(readlink "$path") in
    socket:* | /dev/vsock | anon_inode:*) breach inherited "$path is $(readlink "$path")" ;;
  esac
done
tried inherited
for process in /proc/[0-9]*; do
  [ "$process" = "/proc/$$" ] && continue
  for path in "$process/fd"/*; do
    [ -L "$path" ] || continue
    [ -e "$process" ] && breach foreign "$path can be seen"
    # Opened and not written to: where that works, nothing is harmed.
    if (: >> "$path") 2>/dev/null; then breach foreign "$path can be opened for writing"; fi
  done
done
tried foreign
