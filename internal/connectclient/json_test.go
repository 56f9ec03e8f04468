// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestParts(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                  ``,
		` { } `:                               ``,
		`[]`:                                  ``,
		`{"a":1}`:                             `a=1;`,
		` { "a" : 1 , "b" : [ 2 , 3 ] } `:     `a=1;b=[ 2 , 3 ];`,
		`{"a":{"b":{"c":[1,{"d":2}]}},"e":3}`: `a={"b":{"c":[1,{"d":2}]}};e=3;`,
		`{"a":"},]\"\\","b":"{[,:"}`:          `a="},]\"\\";b="{[,:";`,
		`{"a":1,"a":null}`:                    `a=1;a=null;`,
		`{"\u0061":true,"":false}`:            `\u0061=true;=false;`,
		"[1,\n\t[2],\"3,4\",{}]":              `=1;=[2];="3,4";={};`,
		`"a,b"`:                               ``,
		`null`:                                ``,
		`{"a":1`:                              ``,
		`{"a":1}x`:                            ``,
		`[1,]`:                                ``,
		``:                                    ``,
	} {
		var got strings.Builder
		for name, value := range parts([]byte(text)) {
			fmt.Fprintf(&got, "%s=%s;", name, value)
		}
		if got.String() != want {
			t.Errorf("%s: got %s, want %s", text, got.String(), want)
		}
	}
}

// What has more values than any object of the API is not read, whatever they are.
func TestDecodeIsBounded(t *testing.T) {
	most := strings.Repeat(`"a,b",`, maxValues-2)
	for text, ok := range map[string]bool{
		`{"id":"1","tags":[` + most + `"c"]}`:                             true,
		`{"id":"1","tags":[` + most + `"c","d"]}`:                         false,
		`{"id":"1","x":{"y":[` + most + `"c"],"z":0}}`:                    false,
		`{"id":"1","name":"` + strings.Repeat(`\",`, 10*maxValues) + `"}`: true,
	} {
		var d Device
		if decode([]byte(text), &d) != ok {
			t.Errorf("%.40s… is read: %t", text, !ok)
		}
	}
}

// FuzzMember compares with encoding/json what is found in an object.
func FuzzMember(f *testing.F) {
	for _, text := range []string{`{"id":"1","tags":["a"]}`, `{"id":{"id":[1,2]},"id":3}`, `["id"]`, `{"a\"":"id","id":" ,\\"}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var all map[string]json.RawMessage
		valid := json.Unmarshal(text, &all) == nil
		for name, value := range all {
			escaped, err := json.Marshal(name)
			if plain := `"` + name + `"`; err != nil || string(escaped) != plain || !bytes.Contains(text, []byte(plain)) || bytes.ContainsRune(text, '\\') {
				continue // a name that is written in several ways
			}
			if got := member(text, name); !bytes.Equal(got, value) {
				t.Errorf("%s is %s, not %s", name, got, value)
			}
		}
		if !valid && member(text, "id") != nil {
			t.Error("found in what is no object")
		}
	})
}
