// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxMessage bounds a message of the API in bytes. Its own are below 100.
	MaxMessage = 300
	// MaxStateReason bounds in bytes why a deployment failed: devices write it, at whatever length.
	MaxStateReason = 1024
)

// Text makes foreign text fit for logs, events and status: valid UTF-8 in one line, without characters
// that are not seen but change what is, without secrets, and at most limit bytes long; what is cut off
// leaves an ellipsis. Everything that others wrote goes through it before it is shown: the API, devices,
// users of the organisation. A text that has been through it is left as it is.
//
// Secrets are access tokens, auth keys and device tokens, whole or cut off; of a URL the user, the
// password, the query and the fragment, where presigned ones have their signature; and whatever else
// looks like user:password@. Too much is hidden rather than too little.
func Text(text string, limit int) string {
	// Secrets come second: a control character within one must not hide it. And before the text is cut:
	// no secret must be cut in two. But then what was cut can look like one, so it is looked at again.
	text = head(oneLine(text))
	for range maxRedactions {
		before := text
		text = shorten(oneSpace(withoutSecrets(text, secretPattern)), limit)
		if text == before {
			break
		}
	}
	return text
}

// LogLine is a line of a log without what [Text] takes for secrets; it keeps its form otherwise. In JSON
// each string is looked at by itself, so JSON stays JSON. It is for what others have put into words and
// nobody else looks at: the errors of the Kubernetes API server, and of webhooks behind it, which may
// quote what they were sent.
func LogLine(line string) string {
	if !suspicious(line) {
		return line
	}
	var b strings.Builder
	for line != "" {
		begin := strings.IndexByte(line, '"')
		if begin < 0 {
			begin = len(line)
		}
		b.WriteString(withoutSecrets(line[:begin], wholeSecretPattern))
		end := min(stringEnd(line, begin)+1, len(line))
		b.WriteString(quotedWithoutSecrets(line[begin:end]))
		line = line[end:]
	}
	return b.String()
}

func quotedWithoutSecrets(quoted string) string {
	var text string
	switch {
	case !suspicious(quoted):
		return quoted
	case json.Unmarshal([]byte(quoted), &text) != nil:
		return withoutSecrets(quoted, wholeSecretPattern)
	}
	clean := withoutSecrets(text, wholeSecretPattern)
	if clean == text {
		return quoted
	}
	again, err := json.Marshal(clean)
	if err != nil {
		return `"` + redacted + `"`
	}
	return string(again)
}

const (
	// maxRedactions is more often than a text changes by being redacted.
	maxRedactions = 8
	// maxRead bounds in bytes how much of a text is looked at.
	maxRead = 64 << 10
	// maxWord bounds in bytes what can be a secret that is cut in two.
	maxWord = 4 << 10
)

// head is as much of a text as is looked at. A word that it would end in may be the first half of
// user:password@ and is left out, unless it is longer than any such.
func head(text string) string {
	if len(text) <= maxRead {
		return text
	}
	text = shorten(text, maxRead)
	if end := strings.LastIndexByte(text, ' '); end >= len(text)-maxWord {
		return text[:end] + " …"
	}
	return text
}

// clean is [Text] for a message of the API, which may quote the access token that it was asked with,
// whatever that looks like.
func clean(text string, token Secret) string {
	text = oneLine(text)
	if !token.IsZero() {
		text = strings.ReplaceAll(text, token.Reveal(), redacted)
	}
	return Text(text, MaxMessage)
}

// oneLine drops control characters and those that only format, such as the ones that turn the direction
// of writing around, and makes white space of any kind one space.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r), unseen(r):
			return -1
		default:
			return r
		}
	}, strings.ToValidUTF8(text, ""))
	return oneSpace(text)
}

func oneSpace(text string) string { return strings.Join(strings.Fields(text), " ") }

// unseen tells whether a character takes no place although Unicode counts it as printable.
func unseen(r rune) bool {
	return unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	const ellipsis = "…"
	end := limit - len(ellipsis)
	if end < 0 {
		return ""
	}
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}

var (
	// secretPattern matches access tokens, auth keys and device tokens, whole or cut off. Base58 leaves
	// out 0, O, I and l; better too much is hidden than too little.
	secretPattern = regexp.MustCompile(`(?i)rp(org|oak|dev)(_|%5f)[0-9a-z]*`)

	// wholeSecretPattern leaves what the operator itself calls them, which is a prefix with an ellipsis.
	wholeSecretPattern = regexp.MustCompile(`(?i)rp(org|oak|dev)(_|%5f)[0-9a-z]+`)

	// encodedPattern matches the same in base64, wherever it begins in what was encoded: the Kubernetes
	// API server, and whatever refuses a request there, may quote a Secret as it was sent. Each prefix
	// has three forms, by how many bytes come before it.
	encodedPattern = regexp.MustCompile(`[A-Za-z0-9+/_-]*(` +
		`cnBvcmdf|Jwb3JnX|ycG9yZ1[89+/_-]|` + // rporg_
		`cnBvYWtf|Jwb2FrX|ycG9ha1[89+/_-]|` + // rpoak_
		`cnBkZXZf|JwZGV2X|ycGRldl[89+/_-]` + // rpdev_
		`)[A-Za-z0-9+/_=-]*`)

	// urlPattern matches what begins as a URL does, to the next space.
	urlPattern = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://\S*`)

	// hostPattern matches the host of a URL, with or without a port. A port with letters is a password.
	hostPattern = regexp.MustCompile(`^([^\s:@\[\]]*|\[[0-9A-Fa-f:.]*\])(:\d*)?…?$`)

	// credentialsPattern matches user:password@. In a path it ends at a slash, because there are paths
	// with an @ in them; elsewhere a password may have one.
	credentialsPattern       = regexp.MustCompile(`[^\s/:@]*:[^\s@]+@`)
	credentialsInPathPattern = regexp.MustCompile(`[^\s/:@]*:[^\s/@]+@`)

	// queryPattern matches a query, also of an address without a scheme.
	queryPattern = regexp.MustCompile(`\?[^\s=]+=\S*`)
)

// Without one of these marks there is nothing that a pattern matches. To look for them is quick, and
// most texts have none.
var (
	prefixes        = []string{"rporg", "rpoak", "rpdev"} // in lower case
	encodedPrefixes = []string{"cnBvcmdf", "Jwb3JnX", "ycG9yZ1", "cnBvYWtf", "Jwb2FrX", "ycG9ha1", "cnBkZXZf", "JwZGV2X", "ycGRldl"}
	addresses       = []string{"://", "@", "?"}
)

func suspicious(text string) bool {
	return hasOneOf(text, addresses) || hasOneOf(strings.ToLower(text), prefixes) || hasOneOf(text, encodedPrefixes)
}

func hasOneOf(text string, marks []string) bool {
	return slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(text, mark) })
}

// withoutSecrets hides what the pattern and the others match.
func withoutSecrets(text string, secret *regexp.Regexp) string {
	if hasOneOf(text, encodedPrefixes) {
		text = encodedPattern.ReplaceAllString(text, redacted)
	}
	if hasOneOf(strings.ToLower(text), prefixes) {
		text = secret.ReplaceAllString(text, redacted)
	}
	if !hasOneOf(text, addresses) {
		return text
	}
	var b strings.Builder
	between := func(part string) {
		part = queryPattern.ReplaceAllString(part, "")
		b.WriteString(credentialsPattern.ReplaceAllString(part, redacted+"@"))
	}
	end := 0
	for _, at := range urlPattern.FindAllStringIndex(text, -1) {
		between(text[end:at[0]])
		b.WriteString(bareURL(text[at[0]:at[1]]))
		end = at[1]
	}
	between(text[end:])
	return b.String()
}

// bareURL leaves scheme, host and path of a URL. It does not parse it: what is no valid URL holds
// passwords just as well.
func bareURL(url string) string {
	const mark = "://"
	scheme, rest, _ := strings.Cut(url, mark)
	if end := strings.IndexAny(rest, "?#"); end >= 0 {
		rest = rest[:end]
	}
	authority, path := rest, ""
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		authority, path = rest[:slash], rest[slash:]
	}
	authority = authority[strings.LastIndexByte(authority, '@')+1:]
	nested := strings.HasSuffix(authority, ":") && strings.HasPrefix(path, "//")
	if nested || !hostPattern.MatchString(authority) {
		return scheme + mark + redacted // the first half of a password with a slash in it, say
	}
	if another := strings.Index(path, mark); another >= 0 {
		path = path[:another] + mark + redacted
	}
	return scheme + mark + authority + credentialsInPathPattern.ReplaceAllString(path, redacted+"@")
}
