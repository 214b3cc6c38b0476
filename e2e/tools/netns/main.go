// Runs a command in a network namespace of its own with nothing but a loopback
// interface: a stray packet of a test has nowhere to go.
//
// It needs neither root (a user namespace is made where the caller is not root)
// nor iproute2.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"unsafe"
)

const inside = "COUNTERSIGN_NETNS_INSIDE"

// More addresses of loopback (RFC 5737): what Kubernetes takes for an endpoint may not be in 127/8.
var documentation = [][4]byte{{192, 0, 2, 1}, {192, 0, 2, 2}}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: netns COMMAND [ARGUMENT…]")
		os.Exit(2)
	}
	if os.Getenv(inside) != "" {
		os.Unsetenv(inside)
		fail(loopbackUp())
		for index, address := range documentation {
			fail(alias(index+1, address))
		}
		path, err := exec.LookPath(os.Args[1])
		fail(err)
		fail(syscall.Exec(path, os.Args[1:], os.Environ()))
	}
	self, err := os.Executable()
	fail(err)
	command := exec.Command(self, os.Args[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Env = append(os.Environ(), inside+"=1")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	signal.Ignore(syscall.SIGINT)
	err = command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(max(exit.ExitCode(), 1))
	}
	fail(err)
}

// loopbackUp sets IFF_UP on lo.
func loopbackUp() error {
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	return ioctl(syscall.SIOCSIFFLAGS, unsafe.Pointer(&request))
}

// alias gives loopback one more address.
func alias(index int, address [4]byte) error {
	var request struct {
		name    [syscall.IFNAMSIZ]byte
		address syscall.RawSockaddrInet4
		_       [8]byte
	}
	copy(request.name[:], fmt.Sprintf("lo:%d", index))
	request.address.Family = syscall.AF_INET
	request.address.Addr = address
	return ioctl(syscall.SIOCSIFADDR, unsafe.Pointer(&request))
}

// ioctl asks something of the namespace's interfaces.
func ioctl(what uintptr, request unsafe.Pointer) error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), what, uintptr(request))
	if errno != 0 {
		return errno
	}
	return nil
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "netns:", err)
		os.Exit(1)
	}
}
