package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideVariable marks the process that already runs in the namespaces.
const insideVariable = "BENCH_INSIDE"

// enterNamespaces runs this program again in network and mount namespaces of
// its own, where ports 25 and 53 are free and nothing outside can be reached,
// and answers true in the outer process, with the inner one's exit code.
func enterNamespaces() (outer bool, code int, err error) {
	if os.Getenv(insideVariable) != "" {
		return false, 0, loopbackUp()
	}
	self, err := os.Executable()
	if err != nil {
		return true, 1, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState != nil {
			return true, cmd.ProcessState.ExitCode(), nil
		}
		return true, 1, fmt.Errorf("network namespace: %w (needs root or unprivileged user namespaces)", err)
	}
	return true, 0, nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return secondAddress(fd)
}

// secondAddress gives lo one that is not 127.0.0.1: OpenSMTPD's resolver finds
// no addresses at all where that is the only one (AI_ADDRCONFIG).
func secondAddress(fd int) error {
	ifr, err := unix.NewIfreq("lo:1")
	if err != nil {
		return err
	}
	if err := ifr.SetInet4Addr([]byte{127, 0, 0, 5}); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, ifr); err != nil {
		return fmt.Errorf("second address of lo: %w", err)
	}
	return nil
}

// ownResolvConf makes the system's resolver, which Postfix asks, the rig's.
func ownResolvConf(dir, server string) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	file := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+server+"\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s over /etc/resolv.conf: %w", file, err)
	}
	return nil
}
