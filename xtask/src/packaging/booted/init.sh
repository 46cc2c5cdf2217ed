#!/busybox sh
# The guest's first program: what it takes to reach the disk, then the disk's own systemd.
b=/busybox
$b mkdir -p /dev /root
$b mount -t devtmpfs dev /dev
for module in /modules/*; do
    $b insmod "$module"
done
until [ -b /dev/vda ]; do
    $b sleep 0.1
done
$b mount -t ext4 /dev/vda /root
exec $b switch_root /root /sbin/init
