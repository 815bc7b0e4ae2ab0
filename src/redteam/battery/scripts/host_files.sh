# File systems of the host are mounted already, or can be mounted.
while read -r source place kind rest; do
  case $kind in
    9p | virtiofs | vboxsf | vmhgfs | nfs* | cifs) breach mounts "$source on $place is $kind" ;;
    fuse*) breach mounts "$source on $place is $kind" ;;
  esac
done < /proc/mounts && tried mounts
at=/tmp/chv-redteam-mount
if mkdir -p "$at" 2>/dev/null && have mount; then
  for kind in 9p virtiofs; do
    for tag in host hostshare shared root fs rootfs; do
      if run mount -t "$kind" "$tag" "$at" 2>/dev/null; then breach mount "$kind $tag can be mounted"; fi
    done
  done
  tried mount
fi
for tag in /sys/bus/virtio/drivers/9pnet_virtio/virtio* /sys/bus/virtio/drivers/virtiofs/virtio* /sys/fs/virtiofs/*; do
  [ -e "$tag" ] && breach device "$tag is a share of the host"
done
tried device
# What is above the root is the root.
inside=$(ls -di / | tr -dc 0-9)
above=$(ls -di /../../.. | tr -dc 0-9)
[ "$inside" = "$above" ] || breach root "/../../.. is another directory than /"
tried root
