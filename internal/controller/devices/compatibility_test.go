// SPDX-License-Identifier: Apache-2.0

package devices

import (
	"strings"
	"testing"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
)

func TestMisfit(t *testing.T) {
	pi5 := connectclient.Filters{Model: "5", Memory: "8gb", OS: "raspios-13"}
	for name, test := range map[string]struct {
		wanted v1alpha1.Compatibility
		device connectclient.Filters
		says   string // empty: it fits
	}{
		"any model of several":     {v1alpha1.Compatibility{Models: []string{"4b", "5"}}, pi5, ""},
		"a model in other letters": {v1alpha1.Compatibility{Models: []string{"CM5"}}, connectclient.Filters{Model: "cm5"}, ""},
		"another model":            {v1alpha1.Compatibility{Models: []string{"4b"}}, pi5, `model is "5"`},
		"the operating system":     {v1alpha1.Compatibility{OS: []string{"raspios-13"}}, pi5, ""},
		"another operating system": {v1alpha1.Compatibility{OS: []string{"raspios-12"}}, pi5, `operating system is "raspios-13"`},
		"enough memory":            {v1alpha1.Compatibility{MinMemory: "4gb"}, pi5, ""},
		"just enough memory":       {v1alpha1.Compatibility{MinMemory: "8gb"}, pi5, ""},
		"too little memory":        {v1alpha1.Compatibility{MinMemory: "16gb"}, pi5, `memory is "8gb"`},
		"megabytes and gigabytes":  {v1alpha1.Compatibility{MinMemory: "1gb"}, connectclient.Filters{Memory: "512mb"}, `memory is "512mb"`},
		"a size that nobody knows": {v1alpha1.Compatibility{MinMemory: "1gb"}, connectclient.Filters{Memory: "lots"}, `memory is "lots"`},
		"all of it":                {v1alpha1.Compatibility{Models: []string{"5"}, OS: []string{"raspios-13"}, MinMemory: "2gb"}, pi5, ""},
		"all but one":              {v1alpha1.Compatibility{Models: []string{"5"}, OS: []string{"raspios-12"}, MinMemory: "2gb"}, pi5, "operating system"},
		"a device that says no such thing": {
			v1alpha1.Compatibility{Models: []string{"5"}}, connectclient.Filters{}, "older than 2.9.0"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Misfit(test.wanted, test.device)
			if (got == "") != (test.says == "") || !strings.Contains(got, test.says) {
				t.Errorf("got %q, want %q", got, test.says)
			}
		})
	}
}
