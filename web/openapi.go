package web

import (
	_ "embed"
	"net/http"
)

// openapi.yaml is the contract, written by hand; every answer of the tests is
// checked against it. openapi.json is made from it by a test with -update, so
// that the binary needs no YAML parser.
var (
	//go:embed openapi.yaml
	openapiYAMLFile []byte
	//go:embed openapi.json
	openapiJSONFile []byte

	openapiYAMLDoc = newDocument("application/yaml", openapiYAMLFile)
	openapiJSONDoc = newDocument("application/json", openapiJSONFile)
)

// openapiYAML serves the contract as written.
func (s *Server) openapiYAML() http.Handler { return openapiYAMLDoc }

// openapiJSON serves the contract as JSON.
func (s *Server) openapiJSON() http.Handler { return openapiJSONDoc }
