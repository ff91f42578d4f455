package queue

import (
	"path/filepath"
	"testing"
)

func TestSpaceOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := SpaceOf(dir, 0)
	if err != nil || s.Free == 0 || s.Floor == 0 || s.Floor > defaultMinFree || s.FloorInodes > minFreeInodes {
		t.Errorf("%+v %v", s, err)
	}
	if s, err = SpaceOf(dir, 123); err != nil || s.Floor != 123 {
		t.Errorf("%+v %v", s, err)
	}
	if s, err = SpaceOf(filepath.Join(dir, "none"), 0); err == nil {
		t.Errorf("%+v", s)
	}
}
