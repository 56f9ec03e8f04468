// SPDX-License-Identifier: Apache-2.0

// Package budget decides who may call Connect now.
//
// An access token has a number of requests per fixed window (5,000 an hour). The
// API says in headers how many are left and when the window ends. Other programs
// may spend from the same token, another replica may have died in between, so what
// the headers say always wins over what was counted here. Where there are no
// headers (the older revision) a plain rate takes their place.
//
// A [Budget] is for one token. It never blocks, never sleeps and never sends
// anything: it answers [Budget.Take] with a ticket, or with a [Refusal] that says
// when to come back. So hours of it can be simulated in milliseconds, and no
// worker ever waits on it.
//
// # Who goes first
//
// Not all of the window is for everybody:
//
//	Urgent      cancel, delete             down to the last request
//	Write       create, update             down to 1 % of the limit, at least one request
//	Poll        running deployments        down to the reserve (10 % of the limit)
//	Background  listings to notice drift   down to the reserve
//
// The reserve is kept for the first two, and for other programs that use the
// token. Polls are paced on top of that by a [Poller], so that they last until the
// window ends. Without headers the same order holds: the plain rate keeps its last
// two tokens from those who can wait, so a cancel never queues behind polls.
//
// # What is left
//
// What may be spent is the remaining number of the latest header, less the
// requests on their way, less those whose answer was lost: each of them may have
// been counted after that header was written. Concurrent answers arrive in any
// order, so within a window
//
//   - an answer to a request that was sent after the last header arrived is newer
//     than anything known, and is believed, whatever it says;
//   - of other answers the lowest number counts.
//
// The end of the window is announced in whole seconds, and an answer takes time:
// an answer shows it only to be somewhere between two instants. Answers whose spans
// meet speak of the same window, which keeps its ResetAt to the byte; a later span
// is the next window; an earlier one is a straggler of the window before and
// changes nothing, unless its request was sent in this one. When the end is safely
// past and nobody has said anything since, a full window is assumed, which the next
// header corrects. If none comes the window is taken to last an hour.
//
// Headers that are understood in part never mean that there is no limit. Where the
// limit is missing the last one holds, or 5,000; where the number that is left is
// missing requests are counted here; where the end is missing the known window goes
// on, or one is taken to end at the top of the hour, as documented.
//
// Whatever is waited for is kept with its monotonic clock reading, so nobody's
// setting of the machine's clock opens a window early or keeps it shut for hours.
//
// # When nobody goes
//
// A 429 stops the token until the window ends. A Retry-After, on whatever answer,
// stops it for as long as it says. A 429 with neither stops it for a minute. Those
// who are refused until then come back one after another, the urgent first, within
// a minute for a window of an hour.
//
// A 401 stops the token until it changes, which makes a new Budget, but for one
// probe every half hour; a probe that succeeds lets everybody go again. Before the
// first answer nobody knows whether the token is any good, so one request goes
// alone: a bad token costs one request, however many resources use it. A token that
// was good gets a second chance, because a gateway in trouble may answer 401 too:
// the first puts it in doubt, one request goes alone after 5 seconds, and only if
// that gets another 401 is it rejected. Then it is probed after 10 seconds, 20, and
// so on. After a restart others may know that the token was good ([Budget.Vouch]).
// Rate headers are given to those only who were let in, so a 401 with them is about
// its request.
//
// # When the API is down
//
// A [Breaker] is for an API rather than a token. After five failures in a row it
// lets one request go every 2 seconds, then every 4, 8 and 10, whoever comes first;
// the first answer that is the API's own lets everybody go again.
//
// What this cannot promise: a program that spends from the same token between two
// of our headers is seen only in the second. The reserve is what covers it.
package budget
