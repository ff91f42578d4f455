package api

import (
	"embed"
	"net/http"
	"strings"
)

// The shell of the status page. It holds no figure of its own: it asks for
// the token and shows what GET /v1/stats answers.
//
//go:embed page
var pageFiles embed.FS

var pageTypes = map[string]string{
	"index.html": "text/html; charset=utf-8",
	"page.js":    "text/javascript; charset=utf-8",
	"page.css":   "text/css; charset=utf-8",
}

func servePage(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/page/")
	if r.URL.Path == "/" {
		name = "index.html"
	}
	kind, ok := pageTypes[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	text, err := pageFiles.ReadFile("page/" + name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")
	_, _ = w.Write(text)
}
