// SPDX-License-Identifier: Apache-2.0

// Package simulation plays random histories: what users, other people, devices, the network and crashes
// do to the operator, in an order that nobody has thought of, in simulated time.
//
// The whole operator runs, with its caches, its budget and its shared listings, against an API server
// and a Connect that are both in memory (packages apiserver and connectsim), in a bubble of
// [testing/synctest]: an hour passes as soon as nothing has anything left to do. A history of a few
// hundred steps takes a second or two.
//
// What must hold at every moment is checked at every request ([ledger]) and after every step; what must
// hold in the end, when faults are over and everything has come to rest ([world.atRest]). A history is
// drawn from a seed. One that fails is cut down to the steps that it takes, and printed in a form that
// plays it again:
//
//	go test ./test/simulation -args -seed 7
//	go test ./test/simulation -args -seed 7 -play "apply Artefact 1 0; restart 0 0 0; wait 3 0 0"
//
// A kind joins with a file like artefact_test.go: what its specs are, and what must be true of it at rest.
package simulation
