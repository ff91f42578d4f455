package rehearsal

import (
	"testing"
	"testing/synctest"
	"time"
)

// What lies between the 250 and the arrival is told of the messages of this
// load alone, each once.
func TestPassage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := NewPassage(4)
		id := func(run, number string) []byte { return []byte("<" + run + "." + number + "@load.test>") }
		time.Sleep(time.Millisecond)
		p.accept(0, time.Now())
		time.Sleep(3 * time.Millisecond)
		p.arrive(id(p.run, "0000000000"), time.Now())
		time.Sleep(time.Second)
		p.arrive(id(p.run, "0000000000"), time.Now()) // a duplicate
		p.arrive(id(p.run, "0000000001"), time.Now()) // before its 250
		p.accept(1, time.Now().Add(time.Millisecond))
		p.accept(2, time.Now()) // never arrives
		for _, foreign := range [][]byte{
			nil, id("ffffffffff", "0000000003"), id(p.run, "0000000004"), id(p.run, "00x0000003"),
			id(p.run, "9999999999999999999"), []byte(p.run + ".0000000003"),
		} {
			p.arrive(foreign, time.Now())
		}
		if n := p.Arrived(); n != 2 {
			t.Errorf("%d arrived, want 2", n)
		}
		if got := p.Percentiles(); got.P50 != 3*time.Millisecond || got.Max != 3*time.Millisecond || p.count.Load() != 2 {
			t.Errorf("%+v", got)
		}
	})
}
