package rehearsal

import (
	"io"
	"net"
	"sync"
	"time"
)

// distantListener accepts connections whose other end is far away.
//
// All of the round trip is laid on the way in, where it makes no difference to
// what a client can see. Between the network and the server stands a pipe:
// octets wait before it until they are due, however many are on their way, as
// on a real line.
type distantListener struct {
	net.Listener
	roundTrip time.Duration
	pumps     sync.WaitGroup
}

func newDistantListener(l net.Listener, roundTrip time.Duration) *distantListener {
	return &distantListener{Listener: l, roundTrip: roundTrip}
}

// wait waits until everything that the connections need has ended.
func (l *distantListener) wait() { l.pumps.Wait() }

// Accept implements [net.Listener].
func (l *distantListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	line := make(chan parcel, maxParcels)
	l.pumps.Go(func() { collect(line, conn) })
	l.pumps.Go(func() { release(line, far, l.roundTrip) })
	l.pumps.Go(func() {
		defer conn.Close()
		<-time.After(2 * l.roundTrip)
		io.Copy(conn, far)
	})
	return distantConn{Conn: near, remote: conn.RemoteAddr(), local: conn.LocalAddr()}, nil
}

// maxParcels and parcelSize bound what is on its way: 1 MiB.
const (
	maxParcels = 64
	parcelSize = 16 << 10
)

// parcel is what one read gave.
type parcel struct {
	octets []byte
	at     time.Time
}

// collect puts what comes from the network on the line, until either end closes.
func collect(line chan<- parcel, from net.Conn) {
	defer close(line)
	buf := make([]byte, parcelSize)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			line <- parcel{append([]byte(nil), buf[:n]...), time.Now()}
		}
		if err != nil {
			return
		}
	}
}

// release hands on what is due. It takes from the line to its end, so that collect
// never waits for nobody.
func release(line <-chan parcel, to net.Conn, roundTrip time.Duration) {
	defer to.Close()
	broken := false
	for p := range line {
		if broken {
			continue
		}
		if wait := time.Until(p.at.Add(roundTrip)); wait > 0 {
			<-time.After(wait)
		}
		_, err := to.Write(p.octets)
		broken = err != nil
	}
}

// distantConn is the server's end.
type distantConn struct {
	net.Conn
	remote, local net.Addr
}

func (c distantConn) RemoteAddr() net.Addr { return c.remote }
func (c distantConn) LocalAddr() net.Addr  { return c.local }
