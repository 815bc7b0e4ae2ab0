# Network interfaces and routes. Loopback alone leads nowhere.
if [ -r /proc/net/dev ]; then
  while read -r name rest; do
    case $name in
      Inter-* | face | lo:* | sit0:* | tunl0:* | ip6tnl0:* | dummy*) ;;
      *:*) breach interface "$name" ;;
    esac
  done < /proc/net/dev
  tried interfaces
elif [ -d /sys/class/net ]; then
  for path in /sys/class/net/*; do
    case $path in */lo | */sit0 | */tunl0 | */ip6tnl0 | */dummy*) ;; *) [ -e "$path" ] && breach interface "$path" ;; esac
  done
  tried interfaces
else
  # A kernel that has no list of interfaces has no network at all.
  tried no_network_in_the_kernel
fi
if [ -r /proc/net/route ]; then
  while read -r name destination rest; do
    case $name in Iface | lo) ;; ?*) breach route "$name to $destination" ;; esac
  done < /proc/net/route
  tried routes
fi
