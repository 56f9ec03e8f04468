// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"nothing to do":             {"Checksum mismatch", "Checksum mismatch"},
		"empty":                     {"", ""},
		"blank":                     {" \t\n", ""},
		"several lines":             {"one\r\ntwo\n\n\tthree\u2028four\u00a0five", "one two three four five"},
		"control characters":        {"a\x00b\x1b[31mc\x7f\u0085d", "ab[31mc d"},
		"turned around":             {"gnp.\u202eexe \u2066x\u2069 \u200ey\u200f", "gnp.exe x y"},
		"of no width":               {"a\u200bb\u200cc\u200dd\u2060e\ufefff\u00adg", "abcdefg"},
		"fillers and selectors":     {"a\u3164b\u115fc\u1160d\uffa0e\ufe0ff\u034fg\U000e0041h", "abcdefgh"},
		"no UTF-8":                  {"caf\xe9 au lait", "caf au lait"},
		"letters of any script":     {"Größe 5 µm, \u5317\u4eac, עברית, e\u0301", "Größe 5 µm, \u5317\u4eac, עברית, e\u0301"},
		"an access token":           {"Bearer rporg_7Hk2pQ9xWcVbNmZt4RsYdFgA is revoked", "Bearer [redacted] is revoked"},
		"an auth key":               {"key=rpoak_3vQB7B6MrGQZaxCuFg4oH9XQ;", "key=[redacted];"},
		"a device token, cut":       {"rpdev_", "[redacted]"},
		"in capitals":               {"RPORG_ABC", "[redacted]"},
		"escaped":                   {"rporg%5Fabc", "[redacted]"},
		"hidden in between":         {"rpo\u200brg_\x00ab\u202ec", "[redacted]"},
		"a URL":                     {"see https://example.com/a/b.tar.zst.", "see https://example.com/a/b.tar.zst."},
		"a path of slashes":         {"https://example.com//a", "https://example.com//a"},
		"a file":                    {"file:///boot/a.tar.zst", "file:///boot/a.tar.zst"},
		"a port":                    {"http://10.0.0.5:8080/x", "http://10.0.0.5:8080/x"},
		"an address of IPv6":        {"http://[2001:db8::1]:8080/x?y=z", "http://[2001:db8::1]:8080/x"},
		"a presigned URL":           {"GET https://s3.example.com/a?X-Amz-Signature=abc&b=c failed", "GET https://s3.example.com/a failed"},
		"a fragment":                {"https://example.com/a#token", "https://example.com/a"},
		"a user":                    {"ftp://me@example.com/x", "ftp://example.com/x"},
		"a password":                {"ftp://me:hunter2@example.com:21/x?y", "ftp://example.com:21/x"},
		"a password with an @":      {"ftp://me:hun@ter2@example.com/x", "ftp://example.com/x"},
		"a password with a slash":   {"ftp://me:hun/ter2@example.com/x", "ftp://[redacted]"},
		"a password with a ?":       {"ftp://me:hun?ter2@example.com/x", "ftp://[redacted]"},
		"a password with a #":       {"ftp://me:hun#ter2@example.com/x", "ftp://[redacted]"},
		"a path with an @":          {"https://cdn.example.com/npm/@scope/pkg@1.2/x", "https://cdn.example.com/npm/@scope/pkg@1.2/x"},
		"a URL in a path":           {"https://proxy.example.com/https://me:hunter2@example.com/x?y=z", "https://proxy.example.com/https://[redacted]"},
		"a password in a path":      {"https://proxy.example.com/me:hunter2@example.com/x", "https://proxy.example.com/[redacted]@example.com/x"},
		"a scheme twice":            {"ftp://ftp://me@example.com/x?y", "ftp://[redacted]"},
		"two URLs":                  {"from https://a:b@one/x?y=z to sftp://c:d@two/v?w", "from https://one/x to sftp://two/v"},
		"in quotes":                 {`"uri":"https://me:pw@example.com/x?sig=y" is taken`, `"uri":"https://example.com/x is taken`},
		"a password without URL":    {"curl -u admin:hun/ter2@example.com", "curl -u [redacted]@example.com"},
		"a password without a user": {"redis :hunter2@example.com", "redis [redacted]@example.com"},
		"a query without a scheme":  {"fetch example.com/x?sig=abc&y=z now", "fetch example.com/x now"},
		"a question":                {"Really? Yes", "Really? Yes"},
		"a time":                    {"at 10:30 in state \"succeeded\"", "at 10:30 in state \"succeeded\""},
		"an address of e-mail":      {"ask me@example.com", "ask me@example.com"},
		"too long":                  {strings.Repeat("é", 200), strings.Repeat("é", 148) + "…"},
		"a secret at the end":       {strings.Repeat("x", 290) + " rporg_7Hk2pQ9xWcVbNmZt4RsYdFgA", strings.Repeat("x", 290) + " [redac…"},
		"a password at the end":     {strings.Repeat("x", 280) + " ftp://me:hunter2hunter2@example.com/x", strings.Repeat("x", 280) + " ftp://example.com/x"},
	} {
		got := Text(tt.text, MaxMessage)
		if got != tt.want {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, tt.want)
		}
		if again := Text(got, MaxMessage); again != got {
			t.Errorf("%s: %q becomes %q", name, got, again)
		}
	}
	// Of a very long text the beginning is looked at, to the end of a word.
	long := strings.Repeat("?a=b ", maxRead/5) + "me:" + strings.Repeat("x", 10) + "@example.com"
	if got := Text(long, MaxMessage); got != "…" {
		t.Errorf("of a long text: %q", got)
	}
	for limit, want := range map[int]string{-1: "", 0: "", 2: "", 3: "…", 4: "a…", 6: "abcdef", 7: "abcdef"} {
		if got := Text("abcdef", limit); got != want {
			t.Errorf("in %d bytes: %q, want %q", limit, got, want)
		}
	}
}

// Devices write why a deployment failed, at whatever length and whatever they like.
func TestStateReasonIsCleaned(t *testing.T) {
	reason, err := json.Marshal("\u202egpj.evil\nrpdev_7Hk2pQ9xWcVbNmZt4RsYdFgA https://me:pw@example.com/x?sig=y " + strings.Repeat("é", 45_000))
	if err != nil {
		t.Fatal(err)
	}
	hostile := strings.Replace(deploymentJSON, `"Checksum mismatch"`, string(reason), 1)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, devicesPath) && r.Method == http.MethodGet {
			rows("deployments", hostile).ServeHTTP(w, r)
			return
		}
		ok(hostile).ServeHTTP(w, r)
	})
	client := connect(t, s.URL)
	read, err := client.Deployments().Get(t.Context(), "d1")
	if err != nil {
		t.Fatal(err)
	}
	cancelled, err := client.Deployments().Cancel(t.Context(), "d1")
	if err != nil {
		t.Fatal(err)
	}
	listed, err := client.Deployments().History(t.Context(), "p1")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []Deployment{*read, *cancelled, listed[0]} {
		const want = "gpj.evil [redacted] https://example.com/x ééé"
		if !strings.HasPrefix(d.StateReason, want) || !strings.HasSuffix(d.StateReason, "é…") || len(d.StateReason) > MaxStateReason {
			t.Errorf("%d bytes: %s", len(d.StateReason), d.StateReason)
		}
	}
}

// A refusal quotes what it refuses.
func TestRefusalThatQuotesAPresignedURL(t *testing.T) {
	s := serve(t, always(announced(reply{status: 422, body: `{"message":"Validation failed: Uri https://me:pw@example.com/?sig=hidden is \u202einvalid"}`})))
	err := create(t, connect(t, s.URL))
	mustBeOf(t, err, ErrInvalid)
	if want := "Validation failed: Uri https://example.com/ is invalid"; Message(err) != want {
		t.Errorf("got  %s\nwant %s", Message(err), want)
	}
}

var anySecret = regexp.MustCompile(`(?i)rp(org|oak|dev)_|[a-z]://[^/\s]+@`)

func FuzzText(f *testing.F) {
	for _, seed := range []string{
		"Checksum mismatch", "rporg_\x00" + testToken[6:], "rpo\u200brg_abc", "\u202ertl\u2066", "caf\xe9",
		"https://me:hun/ter2@example.com/x?sig=y#z", "https://a:b@c:d@e", "ftp://[::1]:21/x", "a:b@c:d@e:f@",
		"https://proxy/https://me:pw@host/?x", "https://host:8443/@scope", "?a=b?c=d", "://://@@::", "rprporg_org_", "x:[redacted]@",
		strings.Repeat("https://a:1", 100), strings.Repeat(":@", 400), strings.Repeat("é", 400),
	} {
		f.Add(seed, MaxMessage)
		f.Add(seed, 17)
	}
	f.Fuzz(func(t *testing.T, text string, limit int) {
		got := Text(text, limit)
		switch {
		case len(got) > max(limit, 0):
			t.Errorf("%d bytes in %d: %q", len(got), limit, got)
		case !utf8.ValidString(got):
			t.Errorf("no UTF-8: %q", got)
		case strings.ContainsFunc(got, func(r rune) bool {
			return unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
		}):
			t.Errorf("control characters: %q", got)
		case anySecret.MatchString(got):
			t.Errorf("a secret: %q", got)
		case Text(got, limit) != got:
			t.Errorf("%q becomes %q", got, Text(got, limit))
		}
	})
}

// An admission webhook that refuses a Secret may quote it as it was sent: in base64.
func TestTextHidesWhatIsEncoded(t *testing.T) {
	for _, prefix := range []string{"rporg_", "rpoak_", "rpdev_"} {
		for before := range 4 {
			plain := strings.Repeat("x", before) + prefix + "3vQB7B6MrGQZaxCuFg4oH9XQ"
			for name, encoding := range map[string]*base64.Encoding{"standard": base64.StdEncoding, "URL": base64.RawURLEncoding} {
				quoted := `denied the request: {"data":{"auth.key":"` + encoding.EncodeToString([]byte(plain)) + `"}}`
				want := `denied the request: {"data":{"auth.key":"[redacted]"}}`
				if got := Text(quoted, MaxMessage); got != want {
					t.Errorf("%s after %d bytes, %s: %s", prefix, before, name, got)
				}
			}
		}
	}
}

func TestLogLine(t *testing.T) {
	for name, tt := range map[string]struct{ line, want string }{
		"nothing to do":    {`{"level":"info","msg":"Reconciled","name":"a@b"}`, `{"level":"info","msg":"Reconciled","name":"a@b"}`},
		"no JSON":          {"E1 token rporg_abc is \"rpoak_def\"\n", "E1 token [redacted] is \"[redacted]\"\n"},
		"what they are":    {`{"msg":"put an access token there (rporg_…)"}`, `{"msg":"put an access token there (rporg_…)"}`},
		"a quoted body":    {`{"error":"denied: {\"token\":\"rporg_abc\",\"data\":\"eyJrIjoi cnBvYWtfYWJj\"}","name":"b@c"}`, `{"error":"denied: {\"token\":\"[redacted]\",\"data\":\"eyJrIjoi [redacted]\"}","name":"b@c"}`},
		"a signed URL":     {`{"error":"cannot fetch https://bot:pw@example.com/a?sig=x&y","n":1}`, `{"error":"cannot fetch https://example.com/a","n":1}`},
		"a stack":          {`{"stacktrace":"main.main\n\t/src/main.go:103\nk8s.io/client-go@v0.37.2/x.go:7"}`, `{"stacktrace":"main.main\n\t/src/main.go:103\nk8s.io/client-go@v0.37.2/x.go:7"}`},
		"an open string":   {`{"msg":"rporg_abc`, `{"msg":"[redacted]`},
		"no JSON's escape": {`a "\q rporg_abc" b`, `a "\q [redacted]" b`},
	} {
		if got := LogLine(tt.line); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, tt.want)
		}
	}
}
