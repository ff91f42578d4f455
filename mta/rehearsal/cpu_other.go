//go:build !unix

package rehearsal

import "time"

// processTime is not known here.
func processTime() time.Duration { return 0 }
