// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"regexp"
	"slices"
	"strings"
)

// models are the values of "model:" and what the boards are called.
var models = map[string]string{
	"a": "A", "b": "B", "a+": "A+", "b+": "B+", "2b": "2B", "cm1": "CM1", "3b": "3B", "zero": "Zero", "cm3": "CM3",
	"zerow": "Zero W", "3b+": "3B+", "3a+": "3A+", "cm3+": "CM3+", "4b": "4B", "zero2w": "Zero 2 W", "400": "400",
	"cm4": "CM4", "cm4s": "CM4S", "5": "5", "cm5": "CM5", "500": "500", "cm5lite": "CM5 Lite", "cm0": "CM0",
}

// memories are the values of "memory:".
var memories = []string{"256mb", "512mb", "1gb", "2gb", "4gb", "8gb", "16gb"}

// systems are what the first parts of the values of "os:" are called, and codenames
// what the releases of those are that have some.
var (
	systems   = map[string]string{"raspios": "Raspberry Pi OS", "debian": "Debian", "ubuntu": "Ubuntu"}
	codenames = map[string]string{"10": "Buster", "11": "Bullseye", "12": "Bookworm", "13": "Trixie", "14": "Forky"}

	osPattern = regexp.MustCompile(`^[a-z]+-[0-9.]+$`)
)

// showBoard is a board as the API shows it: the filter "cm5lite" is a "Raspberry Pi
// CM5 Lite", "8gb" are "8 GB".
func showBoard(model, memory string) any {
	if model == "" {
		return nil
	}
	size := strings.TrimRight(memory, "bgm")
	return object{
		"model": "Raspberry Pi " + orElse(models[model], strings.ToUpper(model)), "revision": "1.0",
		"memory": orNull(strings.TrimSpace(size + " " + strings.ToUpper(memory[len(size):]))),
	}
}

// showOS is an operating system as the API shows it: the filter "raspios-13" is
// "Raspberry Pi OS", "13 (Trixie)".
func showOS(os string) any {
	if os == "" {
		return nil
	}
	id, version, _ := strings.Cut(os, "-")
	if name := codenames[version]; name != "" && id != "ubuntu" {
		version += " (" + name + ")"
	}
	return object{"name": orElse(systems[id], id), "version": version}
}

// architecture is that of the kernel which a board runs unless somebody chose
// another one.
func architecture(model string) string {
	switch model {
	case "a", "b", "a+", "b+", "cm1", "zero", "zerow":
		return "armv6l"
	case "2b":
		return "armv7l"
	default:
		return "aarch64"
	}
}

// checkBoard tells what is wrong with the filters of a device.
func checkBoard(model, memory, os string) error {
	switch {
	case model != "" && models[model] == "":
		return mistake("there is no model %q: give a value of \"model:\" such as 5, 4b or cm5lite", model)
	case memory != "" && !slices.Contains(memories, memory):
		return mistake("there is no memory %q: give one of %s", memory, strings.Join(memories, ", "))
	case os != "" && !osPattern.MatchString(os):
		return mistake("%q is no value of \"os:\", such as raspios-13", os)
	case model == "" && memory != "":
		return mistake("a board whose model is unknown has no known memory")
	default:
		return nil
	}
}
