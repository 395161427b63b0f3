package hashchain

import "crypto/sha512"

// generic is the reference kernel: the standard library in a loop. Every other
// kernel is tested against it.
var generic = kernel{
	name:      "generic",
	lanes:     1,
	cost:      829,
	available: func() bool { return true },
	run: func(s *state, at int, n uint64) {
		v := s.value(at)
		for ; n > 0; n-- {
			v = sha512.Sum512(v[:])
		}
		s.set(at, &v)
	},
}

// genericLanes is how many chains share a core that has the generic kernel
// alone. More than one gains no speed; it keeps a long chain from making every
// short one behind it wait for its end.
const genericLanes = 4
