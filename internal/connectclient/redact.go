// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// failure is why no answer came, or not a whole one. Above the redact link its
// text and its cause are safe to keep.
type failure struct {
	text  string
	cause error
	// sent: the API may have got the request.
	sent bool
	// lasting: asking again would fail the same way.
	lasting bool
	// retryAt is when asking again makes sense; zero if that is not known.
	retryAt time.Time
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

func unsent(err error) *failure {
	text, cause := describe(err, Secret{})
	return &failure{text: text, cause: cause}
}

// redact is the link that makes errors safe to keep. Of the body of an error
// answer its message goes on, cleaned, and nothing else. Bodies of success pass:
// a new auth key's secret is in one.
func redact(token Secret) link {
	return func(next exchange) exchange {
		return func(ctx context.Context, req *request) (*answer, error) {
			ans, err := next(ctx, req)
			if ans != nil && ans.status/100 != 2 {
				ans.refusal = parseMessage(ans.header.Get("Content-Type"), ans.body, token)
				ans.body = nil
			}
			if f, ok := errors.AsType[*failure](err); ok {
				safe := *f
				safe.text, safe.cause = describe(f.cause, token)
				err = &safe
			}
			return ans, err
		}
	}
}

// describe says what went wrong on the network in words that are the same every
// time: Go's own name ports, addresses and times, and could quote a header. The
// cause it returns is safe too, and may be nil.
func describe(err error, token Secret) (string, error) {
	var (
		dns     *net.DNSError
		netErr  net.Error
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		errno   syscall.Errno
	)
	switch {
	case errors.Is(err, errOversized):
		return errOversized.Error(), nil
	case errors.Is(err, context.Canceled):
		return "the request was cancelled", context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time", context.DeadlineExceeded
	case errors.As(err, &dns):
		return "its host name cannot be resolved", nil
	case errors.As(err, &unknown):
		return "its TLS certificate is signed by an authority that is not trusted", nil
	case errors.As(err, &host):
		return "its TLS certificate is for another host name", nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its TLS certificate has expired or is not valid yet", nil
	case errors.As(err, &invalid):
		return "its TLS certificate is not valid", nil
	case errors.As(err, &record):
		return "it does not speak TLS", nil
	case errors.As(err, &errno):
		return errno.Error(), errno
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed too early", io.ErrUnexpectedEOF
	case errors.As(err, &netErr) && netErr.Timeout():
		return "no answer in time", nil
	default:
		return "the connection failed: " + clean(innermost(err).Error(), token), nil
	}
}

// innermost strips the wrappers that name addresses.
func innermost(err error) error {
	for {
		var op *net.OpError
		var u *url.Error
		switch {
		case errors.As(err, &op) && op.Err != nil:
			err = op.Err
		case errors.As(err, &u) && u.Err != nil:
			err = u.Err
		default:
			return err
		}
	}
}

// maxMessage bounds a message in bytes. The API's own are below 100.
const maxMessage = 300

// clean makes foreign text fit for logs, events and status: valid, one line,
// without secrets, and short.
func clean(text string, token Secret) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		default:
			return r
		}
	}, strings.ToValidUTF8(text, ""))
	text = strings.Join(strings.Fields(text), " ")
	// Only now: a control character inside a secret must not hide it. And
	// before it is cut, so that no secret is cut in two.
	return shorten(withoutSecrets(text, token))
}

func shorten(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	const ellipsis = "…"
	end := maxMessage - len(ellipsis)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}

// secretPattern matches access tokens, auth keys and device tokens, whole or cut
// off. Base58 leaves out 0, O, I and l; better too much is hidden than too little.
var secretPattern = regexp.MustCompile(`(?i)rp(org|oak|dev)_[0-9a-z]*`)

func withoutSecrets(text string, token Secret) string {
	if !token.IsZero() {
		text = strings.ReplaceAll(text, token.Reveal(), redacted)
	}
	return secretPattern.ReplaceAllString(text, redacted)
}
