package web

import "net/http"

// docs serves the contract as a page. Its script reads /openapi.json, and
// nothing comes from another origin.
func (s *Server) docs() http.Handler { return pages["docs.html"] }

// redoc sends the old address of the documentation to the new one.
func (s *Server) redoc() http.Handler {
	return http.RedirectHandler("/docs", http.StatusTemporaryRedirect)
}
