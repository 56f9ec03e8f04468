// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bytes"
	"encoding/json"
	"iter"
)

// maxValues bounds what an object of the API holds, in values at any depth. A device has about twenty,
// with ten tags the most that it may have. In memory a value can take thirty times what it takes in an
// answer, as an empty string in a list does.
const maxValues = 200

// decode reads an object of the API.
func decode(text []byte, out any) bool {
	return countValues(text) <= maxValues && json.Unmarshal(text, out) == nil
}

// countValues is how many values an object or a list has, or a few less: those of empty lists and objects
// are not told from the lists and objects themselves.
func countValues(text []byte) int {
	n := 1
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = stringEnd(text, i)
		case ',':
			n++
		}
	}
	return n
}

// parts yields the members of a JSON object with their names, or the elements of a list, whose name is
// empty, one after another and without copying them; of anything else, and of what is no JSON, nothing.
// A name that has escapes is given as it is written: no name of the API has any.
func parts(text []byte) iter.Seq2[[]byte, json.RawMessage] {
	return func(yield func([]byte, json.RawMessage) bool) {
		text := bytes.TrimSpace(text)
		if !isObject(text) && !isList(text) || !json.Valid(text) {
			return
		}
		named := isObject(text)
		rest := bytes.TrimSpace(text[1 : len(text)-1])
		for len(rest) > 0 {
			var name []byte
			if named {
				name, rest = cutValue(rest)
				name = name[1 : len(name)-1]
			}
			var value []byte
			value, rest = cutValue(rest)
			if !yield(name, value) {
				return
			}
		}
	}
}

// member is the value of a member of a JSON object; nil if it has none of the name. Of several the last
// one counts.
func member(text []byte, name string) (value json.RawMessage) {
	for other, v := range parts(text) {
		if string(other) == name {
			value = v
		}
	}
	return value
}

func isObject(text []byte) bool { return bytes.HasPrefix(text, []byte("{")) }
func isList(text []byte) bool   { return bytes.HasPrefix(text, []byte("[")) }

// cutValue cuts valid JSON around the first comma or colon that is in no value.
func cutValue(text []byte) (value, rest []byte) {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = stringEnd(text, i)
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',', ':':
			if depth == 0 {
				return bytes.TrimSpace(text[:i]), text[i+1:]
			}
		}
	}
	return bytes.TrimSpace(text), nil
}

// stringEnd is where the string ends that begins at a place: at its second quotation mark, or at the end
// of the text.
func stringEnd[T []byte | string](text T, at int) int {
	for at++; at < len(text) && text[at] != '"'; at++ {
		if text[at] == '\\' {
			at++
		}
	}
	return at
}
