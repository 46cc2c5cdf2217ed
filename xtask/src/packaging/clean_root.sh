# Installs the package in a clean Debian, tries it as its user does, and takes it away again; then the one
# for Fedora and others, by rpm. Runs in a mount namespace of its own, with everything that is written in
# memory: it leaves nothing behind.
# $1: the root, which is only read; $2: the Debian package; $3: the other one. Prints PASS or FAIL for each
# test.
set -u
base=$1 package=$2 rpm=$3

mount -t tmpfs none /mnt || exit 2
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$base,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root || exit 2
# /sys without what is mounted below it: hooks that others have pinned are not ours to detach.
mount --bind /sys /mnt/root/sys
mount --rbind /dev /mnt/root/dev
mount -t proc proc /mnt/root/proc
mount -t tmpfs none /mnt/root/tmp
cp "$package" /mnt/root/tmp/package.deb
cp "$rpm" /mnt/root/tmp/package.rpm

# The clean root becomes the root, as in a container: in a mere chroot paths have two names.
enter='cd /mnt/root && pivot_root . . && umount -l . && exec chroot . /bin/bash -c "$1"'

# NAME COMMAND: the command is run in the clean root, and has to succeed.
try() {
    if said=$(env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive MANWIDTH=80 \
        unshare --mount --propagation private /bin/bash -c "$enter" enter "$2" 2>&1); then
        echo "PASS $1"
    else
        echo "FAIL $1: $(tail -n 5 <<<"$said" | tr '\n' ' ')"
    fi
}

# Files that were written and folders that were made, but for dpkg's own books and man's index. What goes
# to the user's home (rpm's books on Debian, too) is in /tmp.
left() {
    (cd /mnt/upper && find . -mindepth 1 \
        \( -path ./var/lib/dpkg -o -path ./var/cache/man -o -path ./var/log/dpkg.log \) -prune \
        -o \( ! -type d -o ! -exec test -d "$base/{}" \; \) -print)
}

try "the package is installed" "dpkg -i /tmp/package.deb"
try "the unit is enabled" "test -L /etc/systemd/system/sysinit.target.wants/msync-trace.service"
try "the socket is not" "test ! -e /etc/systemd/system/sockets.target.wants/msync-trace.socket"
try "dpkg finds every file as it was packed" 'test -z "$(dpkg -V msync-trace)"'
try "--version" "msync-trace --version"
# 1: with the limits of this kernel.
try "check" "msync-trace check || test \$? = 1"
try "the configuration is understood" \
    "msync-trace serve --config /etc/msync-trace/msync-trace.toml --print-config"
try "selftest" "msync-trace selftest"
try "man msync-trace" "man msync-trace | grep -q 'EXIT STATUS'"
try "a man page for each subcommand" \
    "for it in \$(msync-trace --help | sed -n '/^Commands:/,/^\$/s/^  \([a-z-]*\) .*/\1/p' | grep -vx help)
     do man -w msync-trace-\$it || exit 1; done"
try "apropos" "mandb -q; apropos msync-trace-selftest | grep -q 'on purpose'"
try "completion in bash" \
    ". /usr/share/bash-completion/bash_completion; __load_completion msync-trace
     read -r _ _ _ _ _ function _ <<<\"\$(complete -p msync-trace | sed 's/.*-F /- - - - - /')\"
     COMP_WORDS=(msync-trace self) COMP_CWORD=1; \$function msync-trace self msync-trace
     test \"\${COMPREPLY[*]}\" = selftest"
try "completion in fish" "fish -c 'complete -C \"msync-trace self\"' | grep -q ^selftest"
try "completion in zsh" \
    "zsh -fc 'autoload -Uz compinit; compinit -u -D; test \$_comps[msync-trace] = _msync-trace &&
              zsh -n /usr/share/zsh/vendor-completions/_msync-trace'"
try "evidence survives the removal" \
    "mkdir -p /var/lib/msync-trace; echo evidence >/var/lib/msync-trace/store.db
     dpkg -r msync-trace && test -s /var/lib/msync-trace/store.db &&
     test -s /etc/msync-trace/msync-trace.toml && test ! -e /usr/bin/msync-trace"
try "the package is installed again" "dpkg -i /tmp/package.deb"
try "purging" "dpkg -P msync-trace"
# NAME
nothing_is_left() {
    rest=$(left | head -n 20)
    if [ -z "$rest" ]; then
        echo "PASS $1"
    else
        echo "FAIL $1: $(tr '\n' ' ' <<<"$rest")"
    fi
}
nothing_is_left "nothing is left behind"

# Debian's rpm knows of no installed package, so that what this one needs is read, not looked up.
try "rpm: it needs systemd and a shell, and no library" \
    "rpm -qp --requires /tmp/package.rpm >/tmp/needs && grep -qx systemd /tmp/needs &&
     ! grep -vE '^(/bin/sh|systemd|config\(msync-trace\) = .*|rpmlib\(.*)\$' /tmp/needs"
try "rpm: the package is installed" "rpm -i --nodeps /tmp/package.rpm"
try "rpm: it finds every file as it was packed" "rpm -V --nodeps msync-trace"
try "rpm: check" "msync-trace check || test \$? = 1"
try "rpm: man msync-trace" "man msync-trace | grep -q 'EXIT STATUS'"
try "rpm: the licence is where it is looked for" \
    "test \$(rpm -q --licensefiles msync-trace | xargs ls | wc -l) = 2"
try "rpm: completions are where these distributions have them" \
    "cd /usr/share && test -s zsh/site-functions/_msync-trace &&
     test -s bash-completion/completions/msync-trace && test -s fish/vendor_completions.d/msync-trace.fish"
try "rpm: a changed configuration survives the next version" \
    "echo '# ours' >>/etc/msync-trace/msync-trace.toml && rpm -U --force --nodeps /tmp/package.rpm &&
     grep -qx '# ours' /etc/msync-trace/msync-trace.toml"
try "rpm: evidence survives the removal" \
    "mkdir -p /var/lib/msync-trace; echo evidence >/var/lib/msync-trace/store.db
     rpm -e msync-trace && test -s /var/lib/msync-trace/store.db && test ! -e /usr/bin/msync-trace &&
     rm -r /var/lib/msync-trace && rm /etc/msync-trace/msync-trace.toml.rpmsave && rmdir /etc/msync-trace"
# Of the package filesystem there, which Debian has not.
rmdir /mnt/root/usr/share/licenses /mnt/root/usr/share/zsh/site-functions
nothing_is_left "rpm: nothing else is left behind"
echo END
