package web

// Patterns returns the patterns of the route table, for the tests that hold it
// to openapi.yaml.
func (s *Server) Patterns() []string {
	var p []string
	for _, r := range s.routes {
		p = append(p, r.pattern)
	}
	return p
}
