# Opens TCP connections to hosts that virtual machines can usually reach.
if have nc; then
  for host in 10.0.2.2 169.254.169.254 192.168.122.1 192.168.249.1 172.17.0.1 1.1.1.1; do
    for number in 22 53 80 443; do
      if run nc -w 1 "$host" "$number" </dev/null >/dev/null 2>&1; then breach connect "$host:$number is connected"; fi
    done
  done
  tried connect
elif command -v bash >/dev/null 2>&1 && have timeout; then
  for host in 10.0.2.2 169.254.169.254 192.168.122.1 192.168.249.1 172.17.0.1 1.1.1.1; do
    for number in 22 53 80 443; do
      if run timeout 1 bash -c ": < /dev/tcp/$host/$number" 2>/dev/null; then breach connect "$host:$number is connected"; fi
    done
  done
  tried connect
else
  cannot connect "the image has no program that opens a connection: nc, or bash with timeout"
fi
