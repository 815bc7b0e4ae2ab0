# Writes until no space is left.
i=0
while [ "$i" -lt 1024 ] && dd if=/dev/zero of="/tmp/chv-redteam-fill-$i" bs=1048576 count=64 2>/dev/null; do
  i=$((i + 1))
done
tried disk
say files "$i"
