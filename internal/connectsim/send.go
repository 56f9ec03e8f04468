// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
)

// plain is a body that is sent as text, html one that is sent as a page, raw one
// that is sent as it is, and a stream one that is written while it goes on.
type (
	plain  string
	html   string
	raw    string
	stream func(http.ResponseWriter, *http.Request)
)

// encode is the body as it is sent, and its Content-Type; empty if it is the HTTP
// library's to guess.
func encode(body any) (text []byte, contentType string) {
	switch b := body.(type) {
	case nil:
		return nil, ""
	case raw:
		return []byte(b), ""
	case plain:
		return []byte(b), "text/plain; charset=utf-8"
	case html:
		return []byte(b), "text/html; charset=utf-8"
	case stream:
		return nil, "text/event-stream; charset=utf-8"
	default:
		text, _ = json.Marshal(b) // the handlers' bodies always marshal
		return text, "application/json; charset=utf-8"
	}
}

// send writes the answer, in the way of the fault.
func send(w http.ResponseWriter, r *http.Request, status int, body []byte, fault Fault) {
	body = append(body, make([]byte, fault.Oversize)...)
	if fault.Truncate {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		body = body[:len(body)/2]
	}
	w.WriteHeader(status)
	for piece := range slices.Chunk(body, fault.pieceSize(len(body))) {
		_, _ = w.Write(piece)
		if fault.Drip > 0 || fault.Truncate { // what is left in a buffer would come at once, or be lost
			_ = http.NewResponseController(w).Flush()
		}
		if !wait(r, fault.Drip) {
			return
		}
	}
	if fault.Truncate {
		panic(http.ErrAbortHandler) // the rest never comes
	}
}

// drop closes the connection without an answer. Over HTTP/2, where a connection
// carries other requests as well, it resets the stream (INTERNAL_ERROR: net/http
// has no other).
func drop(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = connection.Close()
}

// silence lets the connection of a request die without a word: it takes whatever
// comes and says nothing any more, neither to this request nor to others nor to
// pings. It returns when the client has given up.
func silence(r *http.Request) {
	if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		c.silence()
	}
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}
