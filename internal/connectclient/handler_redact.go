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
	"strings"
	"syscall"
	"time"
)

// failure is why no answer came, or not a whole one. Above the redact middleware its
// text and its cause are safe to keep.
type failure struct {
	text  string
	cause error
	// sent: the API may have got the request.
	sent bool
	// repeats is how often net/http wrote the request again.
	repeats int
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

// redact is the middleware that makes errors safe to keep. Of the body of an error
// answer its message and its form go on, and nothing else. Bodies of success pass:
// a new auth key's secret is in one.
func redact(token Secret) middleware {
	return func(next handler) handler {
		return func(ctx context.Context, req *request) (*answer, error) {
			ans, err := next(ctx, req)
			if ans != nil {
				ans.html = isHTML(ans.header.Get("Content-Type"), ans.body)
			}
			if ans != nil && ans.status/100 != 2 {
				ans.refusal, ans.worded = parseMessage(ans, token)
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
// time: Go's own name ports, addresses, streams and times, and could quote a
// header. What ends a connection early looks different by the millisecond, so it
// has one name. The cause it returns is safe too, and may be nil.
func describe(err error, token Secret) (string, error) {
	var (
		dns     *net.DNSError
		netErr  net.Error
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		errno   syscall.Errno
	)
	switch {
	case errors.Is(err, errOversized):
		return errOversized.Error(), nil
	case errors.Is(err, errReset):
		return errReset.Error(), nil
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
	case errors.As(err, &alert):
		return "TLS could not be agreed on", nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return closedEarly, io.ErrUnexpectedEOF
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		errors.As(err, &errno)
		return closedEarly, errno
	case errors.As(err, &errno):
		return errno.Error(), errno
	case errors.As(err, &netErr) && netErr.Timeout():
		return "no answer in time", nil
	default:
		return foreign(innermost(err).Error(), token), nil
	}
}

const closedEarly = "the connection was closed too early"

// wordings are what net/http and TLS say in errors that they do not export, by
// what is in them and by what they mean.
var wordings = []struct{ theirs, ours string }{
	{"stream error: ", errReset.Error()},
	{"GOAWAY", "the other side shut the connection down"},
	{"http2: client connection lost", "the connection was lost"},
	{"http2: client conn", closedEarly},
	{"http: server closed idle connection", closedEarly},
	{"use of closed network connection", closedEarly},
	{"malformed HTTP", "it does not speak HTTP"},
	{"http2: ", "the HTTP/2 connection failed"},
	{"connection error: ", "the HTTP/2 connection failed"},
	{"tls: ", "TLS could not be agreed on"},
}

// foreign puts an error that has no type into words. What no wording is known of
// is quoted, if nothing in it can be a number that changes.
func foreign(text string, token Secret) string {
	for _, w := range wordings {
		if strings.Contains(text, w.theirs) {
			return w.ours
		}
	}
	text = clean(text, token)
	if strings.ContainsAny(text, "0123456789") {
		return "the connection failed"
	}
	return "the connection failed: " + text
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
