# Devices through which a tool reaches disks, memory or the machine beneath.
for device in /dev/mem /dev/kmem /dev/port /dev/kvm /dev/vhost-* /dev/vport* /dev/virtio-ports/* /dev/cpu/*/msr /dev/nvram \
  /dev/fuse /dev/loop-control /dev/mapper/control /dev/vd* /dev/sd* /dev/nvme* /dev/pmem* /dev/loop*; do
  [ -e "$device" ] || continue
  if (: < "$device") 2>/dev/null; then breach read "$device can be opened"; fi
  if (: >> "$device") 2>/dev/null; then breach write "$device can be opened for writing"; fi
done
tried open
node=/tmp/chv-redteam-node
if have mknod; then
  for numbers in "b 254 0" "b 253 0" "c 1 1" "c 10 232"; do
    # Unquoted, because the words are separate arguments.
    if run mknod "$node" $numbers 2>/dev/null; then
      if (: < "$node") 2>/dev/null; then breach node "a node $numbers can be made and opened"; fi
      rm -f "$node"
    fi
  done
  tried node
fi
for file in /sys/bus/pci/devices/*/config /sys/bus/pci/devices/*/resource0 /proc/bus/pci/*/*; do
  [ -e "$file" ] || continue
  if (: >> "$file") 2>/dev/null; then breach pci "$file can be opened for writing"; fi
done
tried pci
