# Makes a disk to boot: a clean Debian with the package installed, the kernel's modules and the test. Runs
# in a mount namespace of its own, with everything that is written in memory but for the disk.
# $1: the root, which is only read; $2: the folder of the kernel's modules; $3: a folder of files for the
# guest's /opt/booted, package.deb among them; $4: the disk.
set -eu
base=$1 modules=$2 files=$3 disk=$4

mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$base,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
cd /mnt/root
mkdir -p opt/booted etc/systemd/system/multi-user.target.wants
cp "$files"/* opt/booted
mv opt/booted/booted.service etc/systemd/system
ln -s ../booted.service etc/systemd/system/multi-user.target.wants/booted.service

# Without a running systemd the package only enables its unit: the boot starts it.
mount --rbind /dev dev
mount -t proc proc proc
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    chroot . dpkg -i /opt/booted/package.deb
umount proc
umount -l dev

echo msync-trace-booted >etc/hostname
mkdir -p "usr/lib/modules/${modules##*/}"
mount --bind "$modules" "usr/lib/modules/${modules##*/}"
rm -f "$disk"
mke2fs -q -t ext4 -b 4096 -E lazy_itable_init=1,lazy_journal_init=1 -d . "$disk" 1536M
