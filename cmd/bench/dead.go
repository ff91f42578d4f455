package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postrider/mta/rehearsal"
)

// blackHole is an address that swallows connection attempts without an answer,
// as a firewall that drops packets does: a listener that accepts nothing, with
// its queue full. Linux drops what comes then.
type blackHole struct {
	listener int
	waiting  []net.Conn
}

func newBlackHole(host string, port int) (*blackHole, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	h := &blackHole{listener: fd}
	address := netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: address.Addr().As4()}),
		unix.Listen(fd, 0))
	if err != nil {
		h.close()
		return nil, fmt.Errorf("black hole at %v: %w", address, err)
	}
	// The queue of length 0 holds one. What the next one meets is silence.
	const maxQueue = 16
	for range maxQueue {
		conn, err := net.DialTimeout("tcp4", address.String(), 200*time.Millisecond)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return h, nil
		}
		if err != nil {
			h.close()
			return nil, fmt.Errorf("black hole at %v: %w", address, err)
		}
		h.waiting = append(h.waiting, conn)
	}
	h.close()
	return nil, fmt.Errorf("black hole at %v: still takes connections after %d", address, maxQueue)
}

func (h *blackHole) close() {
	for _, c := range h.waiting {
		c.Close()
	}
	unix.Close(h.listener)
}

// submitDead submits messages for dead domains, as many for each way of being
// dead, and returns when all are accepted.
func submitDead(ctx context.Context, v variant, way rehearsal.Way) error {
	for i, suffix := range v.ways {
		// What does not divide evenly goes to the first ones.
		share := func(n int) int { return (n + len(v.ways) - 1 - i) / len(v.ways) }
		n := int64(share(v.dead))
		load, err := rehearsal.NewLoad(rehearsal.LoadOptions{
			Target: submissionAddr, Sessions: sessions, Messages: n, Domains: share(deadDomains), DomainSuffix: suffix, Way: way,
		})
		if err != nil {
			return err
		}
		if _, err := runLoad(ctx, load, n); err != nil {
			return fmt.Errorf("for dead domains: %w", err)
		}
	}
	return nil
}

// layWaiting gives a turn a queue that holds messages for destinations that
// are down. It is made once, by the server itself, and copied for each round.
func (r *rig) layWaiting(ctx context.Context, t *turn) error {
	server, ok := t.server.(*postriderServer)
	if !ok {
		return fmt.Errorf("a waiting queue of %s cannot be copied", t.server.name())
	}
	seed := filepath.Join(r.dir, "waiting-"+grouped(t.variant.waiting))
	// What waits for days expires: a queue of yesterday is made anew.
	if info, err := os.Stat(seed); err != nil || time.Since(info.ModTime()) > 24*time.Hour {
		if err := r.makeWaiting(ctx, t, seed); err != nil {
			return fmt.Errorf("fill a queue: %w", err)
		}
	}
	return copyStore(server.stateDir(t.dir), server.stateDir(seed))
}

// makeWaiting fills a queue in dir.
func (r *rig) makeWaiting(ctx context.Context, t *turn, dir string) (err error) {
	began := time.Now()
	making := dir + ".making"
	if err := errors.Join(os.RemoveAll(making), os.MkdirAll(making, 0o755)); err != nil {
		return err
	}
	own := *t
	own.dir, own.wrap = making, nil
	s, err := own.launch(ctx)
	if err != nil {
		return err
	}
	defer s.end()
	load, err := rehearsal.NewLoad(rehearsal.LoadOptions{
		Target: submissionAddr, Sessions: sessions, Messages: int64(t.variant.waiting),
		Size: t.size, Domains: waitingDomains, DomainSuffix: downSuffix, Way: t.way,
	})
	if err != nil {
		return err
	}
	if _, err := runLoad(ctx, load, int64(t.variant.waiting)); err != nil {
		return err
	}
	if _, err := s.stop(); err != nil {
		return err
	}
	fmt.Printf("  %s messages for destinations that are down were accepted in %.0f s; %s keeps them for later rounds and runs\n",
		grouped(t.variant.waiting), time.Since(began).Seconds(), dir)
	return errors.Join(os.RemoveAll(dir), os.Rename(making, dir))
}

// copyStore copies a queue. Tables and blobs of the store are never written
// again once they are complete: they are linked.
func copyStore(dst, src string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return errors.Join(os.MkdirAll(to, 0o700), os.Chmod(to, info.Mode().Perm()))
		case !info.Mode().IsRegular():
			return nil // a socket
		case strings.HasSuffix(rel, ".sst") || strings.HasSuffix(rel, ".blob"):
			return os.Link(path, to)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, info.Mode().Perm())
	})
}
