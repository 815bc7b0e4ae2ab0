# Tries to leave the tool's confinement: to reach the guest's first process and the guest's kernel.
[ "$(id -u)" = 0 ] && breach user "the tool runs as root"
tried user
while read -r name value rest; do
  case $name in
    CapEff: | CapPrm: | CapAmb:)
      case $value in *[!0]*) breach capabilities "$name $value" ;; esac
      tried capabilities ;;
  esac
done < /proc/self/status
for path in /proc/1/root /proc/1/cwd /proc/1/fd /proc/1/map_files; do
  if ls "$path/" >/dev/null 2>&1; then breach init "$path can be listed"; fi
done
for path in /proc/1/mem /proc/1/environ /proc/1/maps /proc/kcore /proc/kmsg; do
  if (: < "$path") 2>/dev/null && head -c 1 "$path" >/dev/null 2>&1; then breach init "$path can be read"; fi
done
tried init
if kill -0 1 2>/dev/null; then breach signal "the first process can be signalled"; fi
tried signal
for path in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hostname \
  /proc/sys/vm/overcommit_memory /sys/kernel/uevent_helper /sys/fs/cgroup/cgroup.procs /sys/power/state \
  /sys/module/kernel/parameters/panic; do
  [ -e "$path" ] || continue
  if (: >> "$path") 2>/dev/null; then breach kernel "$path can be opened for writing"; fi
done
tried kernel
if have unshare; then
  if run unshare -r true 2>/dev/null || run unshare -U true 2>/dev/null; then breach namespace "a user namespace can be made"; fi
  tried namespace
fi
if have chroot; then
  if run chroot / /bin/true 2>/dev/null; then breach chroot "the root can be changed"; fi
  tried chroot
fi
