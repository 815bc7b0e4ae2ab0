# Speaks vsock as the dispatcher does: connects to the host's ports, and listens on the dispatcher's port.
if command -v python3 >/dev/null 2>&1; then
  python3 - "$token" "$port" <<'PYTHON'
import socket, sys
token, port = sys.argv[1], int(sys.argv[2])
for cid, number in [(2, port), (2, 1), (2, 22), (2, 1024), (1, port), (3, port)]:
    try:
        stream = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        stream.settimeout(2)
        stream.connect((cid, number))
        print(f"{token} breach connect {cid}:{number} is connected")
    except (OSError, AttributeError):
        pass
try:
    stream = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    stream.bind((0xFFFFFFFF, port))
    stream.listen()
    print(f"{token} breach listen port {port} can be taken")
except (OSError, AttributeError):
    pass
PYTHON
  tried connect
elif command -v socat >/dev/null 2>&1; then
  for address in "2:$port" 2:1 2:22 2:1024 "1:$port" "3:$port"; do
    if echo forged | socat -T 2 - "VSOCK-CONNECT:$address" >/dev/null 2>&1; then breach connect "$address is connected"; fi
  done
  tried connect
else
  cannot connect "the image has neither python3 nor socat, which open vsock sockets"
fi
