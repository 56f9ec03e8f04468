// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What answers cost is measured in bytes that are allocated, as a multiple of their size: that does not
// depend on the machine. Texts that are no UTF-8 are the dearest: each wrong byte becomes three, in a
// buffer that is copied as it grows. Lists of short strings come next, of which each has a header of
// sixteen bytes.
const bearable = 12

// allocated is how many bytes f allocates, and everybody else at the time.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// size is of the bodies whose cost is measured; a larger one costs as much a byte.
const size = maxBody / 8

// filled is a text with as many repetitions in the middle as fit into the size.
func filled(before, repeated, after string) []byte {
	n := (size - len(before) - len(after)) / len(repeated)
	return []byte(before + strings.Repeat(repeated, n) + after)
}

// A body within its bound does not become a multiple of that in memory, whatever is in it.
func TestMemoryOfAnAnswerIsBounded(t *testing.T) {
	members := func(before, after string) []byte {
		var b bytes.Buffer
		b.WriteString(before)
		for i := 0; b.Len() < size-100; i++ {
			fmt.Fprintf(&b, `"%x":0,`, i)
		}
		b.WriteString(after)
		return b.Bytes()
	}
	const meta = `"meta":{"total_count":1}`
	for name, body := range map[string][]byte{
		"rows without end":           filled(`{`+meta+`,"devices":[0`, ",0", `]}`),
		"members without end":        members(`{`+meta+`,`, `"devices":[]}`),
		"members of a row":           members(`{`+meta+`,"devices":[{"id":"1",`, `"name":"x"}]}`),
		"members of a board":         members(`{`+meta+`,"devices":[{"id":"1","board":{`, `"model":"x"}}]}`),
		"members of meta":            members(`{"devices":[],"meta":{"total_count":1,`, `"x":0}}`),
		"tags without end":           filled(`{`+meta+`,"devices":[{"id":"1","tags":["a"`, `,""`, `]}]}`),
		"as many tags as are read":   filled(`{`+meta+`,"devices":[0`, `,{"id":"1","tags":[`+strings.Repeat(`"",`, maxValues-10)+`""]}`, `]}`),
		"lists in lists":             filled(`{`+meta+`,"devices":`, `[`, ``),
		"objects in objects":         filled(`{`+meta+`,"devices":[`, `{"a":`, ``),
		"an endless number":          filled(`{`+meta+`,"devices":[{"id":"1","board":{"memory":1`, `0`, `}}]}`),
		"an endless count":           filled(`{"devices":[],"meta":{"total_count":1`, `0`, `}}`),
		"an endless name":            filled(`{`+meta+`,"devices":[{"id":"1","name":"`, `x`, `"}]}`),
		"a name of escapes":          filled(`{`+meta+`,"devices":[{"id":"1","name":"`, `\u0000`, `"}]}`),
		"the same member many times": filled(`{`, `"devices":[],`, meta+`}`),
		"no UTF-8":                   filled(`{`+meta+`,"devices":[{"id":"1","name":"`, "\xff", `"}]}`),
		"no JSON":                    filled(``, `x`, ``),
		"rubbish after the end":      filled(`{`+meta+`,"devices":[]}`, `x`, ``),
	} {
		t.Run(name, func(t *testing.T) {
			if got := allocated(func() { decodePage(body, "devices", (*Device).normalise) }); got > bearable*size {
				t.Errorf("a page of %d KiB allocates %d KiB", len(body)>>10, got>>10)
			}
			if got := allocated(func() { hasMember(body, "id") }); got > bearable*size {
				t.Errorf("looking for an id in %d KiB allocates %d KiB", len(body)>>10, got>>10)
			}
		})
	}
}

// raw is a service that speaks bytes, and need not keep to HTTP. Its connections end with the test.
func raw(t *testing.T, answer func(net.Conn, *http.Request)) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err == nil {
					answer(conn, req)
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// forever writes until the other side has had enough.
func forever(w io.Writer, text string) {
	chunk := []byte(strings.Repeat(text, 1+(32<<10)/len(text)))
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func bomb(t *testing.T, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	for range size >> 20 {
		_, _ = w.Write(make([]byte, 1<<20))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Answers that have no end, or lie about themselves, are an outage, and end when they have cost enough:
// at the bounds of bodies and headers, without waiting for a timeout.
func TestLyingAndEndlessAnswersEnd(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nX-Rate-Limit-Limit: 5000\r\nX-Rate-Limit-Remaining: 4000\r\nX-Rate-Limit-Reset: 60\r\nContent-Type: application/json\r\n"
	const one = `{"id":"d1","state":"pending","device_id":"1","artefact_id":"1"}`
	compressed := bomb(t, 64<<20)
	for name, answer := range map[string]func(io.Writer){
		"a body without end": func(w io.Writer) { _, _ = io.WriteString(w, ok+"\r\n"); forever(w, " ") },
		"chunks without end": func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Transfer-Encoding: chunked\r\n\r\n")
			forever(w, "1\r\n \r\n")
		},
		"a header without end":  func(w io.Writer) { _, _ = io.WriteString(w, ok+"X: "); forever(w, "x") },
		"headers without end":   func(w io.Writer) { _, _ = io.WriteString(w, ok); forever(w, "X: y\r\n") },
		"a status without end":  func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/1.1 200 "); forever(w, "x") },
		"continues without end": func(w io.Writer) { forever(w, "HTTP/1.1 100 Continue\r\n\r\n") },
		"hints without end":     func(w io.Writer) { forever(w, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n") },
		"a chunk of a size it has not": func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"+one)
		},
		"trailers without end": func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n")
			forever(w, "X: y\r\n")
		},
		"longer, as it says, than it is": func(w io.Writer) { _, _ = io.WriteString(w, ok+"Content-Length: 1000000\r\n\r\n"+one) },
		"of a negative length":           func(w io.Writer) { _, _ = io.WriteString(w, ok+"Content-Length: -1\r\n\r\n"+one) },
		"of two lengths":                 func(w io.Writer) { _, _ = io.WriteString(w, ok+"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"+one) },
		"of an enormous length":          func(w io.Writer) { _, _ = io.WriteString(w, ok+"Content-Length: 9223372036854775807\r\n\r\n"+one) },
		"shorter than it is":             func(w io.Writer) { _, _ = io.WriteString(w, ok+"Content-Length: 5\r\n\r\n"+one) },
		"a gzip bomb": func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Encoding: gzip\r\nContent-Length: "+strconv.Itoa(len(compressed))+"\r\n\r\n"+string(compressed))
		},
		"gzip that is none": func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Encoding: gzip\r\nContent-Length: "+strconv.Itoa(len(one))+"\r\n\r\n"+one)
		},
		"rubbish after the end": func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Length: "+strconv.Itoa(len(one)+1)+"\r\n\r\n"+one+"x")
		},
		"a redirect to itself": func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 302 Found\r\nLocation: /organisation/deployments/d1\r\nContent-Length: 0\r\n\r\n")
		},
		"another protocol": func(w io.Writer) { _, _ = io.WriteString(w, "SSH-2.0-OpenSSH_9.6\r\n") },
		"a switch of protocols": func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
			forever(w, "x")
		},
		"nothing": func(io.Writer) {},
	} {
		t.Run(name, func(t *testing.T) {
			url := raw(t, func(conn net.Conn, _ *http.Request) { answer(conn) })
			client := connect(t, url)
			var err error
			cost := allocated(func() { _, err = client.Deployments().Get(t.Context(), "d1") })
			mustBeOf(t, err, ErrUnavailable)
			mustBeSafe(t, err.Error())
			if strings.Contains(err.Error(), "in time") {
				t.Errorf("it ended by a timeout only: %v", err)
			}
			// One call is a few attempts, each of which reads to the bound while its buffer grows.
			if cost > maxAttempts*8*maxBody {
				t.Errorf("it cost %d MiB", cost>>20)
			}
		})
	}
}

// An error without end is as good as one without a body, and means what its status means.
func TestEndlessErrorMeansItsStatus(t *testing.T) {
	url := raw(t, func(conn net.Conn, _ *http.Request) {
		_, _ = io.WriteString(conn, "HTTP/1.1 404 Not Found\r\nX-Rate-Limit-Limit: 5000\r\nX-Rate-Limit-Remaining: 4000\r\nX-Rate-Limit-Reset: 60\r\n\r\n{")
		forever(conn, `"message":"`)
	})
	var err error
	cost := allocated(func() { _, err = connect(t, url).Deployments().Get(t.Context(), "d1") })
	mustBeOf(t, err, ErrNotFound)
	if cost > maxBody {
		t.Errorf("it cost %d KiB", cost>>10)
	}
}

// An endless answer at a trickle is given up like one that does not come. Time is synctest's.
func TestTrickleEnds(t *testing.T) {
	_, transport := trusted(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		transport.DialContext = n.dial
		p := &peer{URL: "http://127.0.0.1", transport: transport}
		p.serveHTTP1(t, n, func(conn net.Conn, _ int) bool {
			_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			for err == nil {
				time.Sleep(time.Second)
				_, err = conn.Write([]byte(" "))
			}
			return false
		})
		t.Cleanup(transport.CloseIdleConnections)
		_, err := connect(t, p.URL, func(o *Options) { o.Transport = transport }).Deployments().Get(t.Context(), "d1")
		mustBeOf(t, err, ErrUnavailable)
		if !strings.Contains(err.Error(), "no answer in time") {
			t.Error(err)
		}
	})
}

// Ids are the API's own. Whatever they are, they are asked for below their collection, and rows that
// have the same one are one.
func TestStrangeIDsStayInTheirCollection(t *testing.T) {
	for _, id := range []string{"a/b", "../devices", "a?b=c", "a#b", "%2e%2e", "a b", "é", "\x00", "\r\nHost: x", strings.Repeat("x", 1000)} {
		s := serve(t, always(announced(reply{status: 200, body: `{"id":"1"}`})))
		if _, err := connect(t, s.URL).Deployments().Get(t.Context(), id); err != nil {
			t.Errorf("%q: %v", id, err)
			continue
		}
		rest, ok := strings.CutPrefix(s.requests()[0].URI, "/organisation/deployments/")
		if !ok || rest == "" || strings.ContainsAny(rest, "/?# \r\n") {
			t.Errorf("%q is asked for as %q", id, s.requests()[0].URI)
		}
	}
	page, ok := decodePage([]byte(`{"devices":[{"id":"1"},{"id":"1"},{"id":"1"}],"meta":{"total_count":3}}`), "devices", (*Device).normalise)
	l := Listing[Device]{}
	if rows := l.news(page); !ok || len(rows) != 1 {
		t.Errorf("%d rows of one id", len(rows))
	}
}
