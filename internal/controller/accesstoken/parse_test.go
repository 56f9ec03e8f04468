// SPDX-License-Identifier: Apache-2.0

package accesstoken

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const token = "rporg_123456789ABCDEFGHJKLMNPQ"
	for name, test := range map[string]struct {
		value   string
		problem string // empty: the token is found
	}{
		"the token":                     {token, ""},
		"with a newline":                {token + "\n", ""},
		"with the line end of Windows":  {token + "\r\n", ""},
		"with white space around":       {" \t" + token + "\n\n", ""},
		"with a byte order mark":        {"\ufeff" + token, ""},
		"in double quotes":              {`"` + token + `"` + "\n", ""},
		"in single quotes":              {"'" + token + "'", ""},
		"with the scheme":               {"Bearer " + token, ""},
		"with the scheme in capitals":   {"BEARER " + token, ""},
		"with the whole header":         {"Authorization: Bearer " + token + "\r\n", ""},
		"quotes and scheme":             {`"Bearer ` + token + `"`, ""},
		"an auth key":                   {"rpoak_123456789ABCDEFGHJKLMNPQ\n", "an auth key"},
		"an auth key in quotes":         {`"rpoak_123456789ABCDEFGHJKLMNPQ"`, "an auth key"},
		"a device's token":              {"rpdev_123456789ABCDEFGHJKLMNPQ", "a device's token"},
		"two lines":                     {token + "\n" + token, "several lines"},
		"a line above it":               {"# my token\n" + token, "several lines"},
		"a word after it":               {token + " prod", "characters"},
		"control characters":            {token + "\x00", "characters"},
		"another alphabet":              {"rporg_Ω", "characters"},
		"a token of a form that is new": {"rpx_" + token, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, problem := parse([]byte(test.value))
			if (problem == "") != (test.problem == "") || !strings.Contains(problem, test.problem) {
				t.Fatalf("the problem is %q, want %q", problem, test.problem)
			}
			if problem == "" && !strings.HasSuffix(got.Reveal(), token) || problem != "" && !got.IsZero() {
				t.Error("that is not the token")
			}
		})
	}
	for _, nothing := range []string{"", " \n", `""`, "\ufeff\r\n", "Bearer "} {
		if got, problem := parse([]byte(nothing)); !got.IsZero() || problem != "" {
			t.Errorf("%q is a token, or has the problem %q", nothing, problem)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"rporg_123456789ABCDEFGHJKLMNPQ\n", `"Bearer rporg_1"`, "rpoak_1", "\ufeff'x'", "a\nb"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		token, problem := parse(value)
		if !token.IsZero() && (problem != "" || strings.ContainsFunc(token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' })) {
			t.Errorf("a token that cannot be sent, or the problem %q", problem)
		}
		if problem != "" && len(problem) > 100 {
			t.Errorf("the problem is told at length: %q", problem)
		}
	})
}
