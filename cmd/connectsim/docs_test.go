// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

// manual is docs/simulator.md.
func manual(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section is what stands under a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(manual(t), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("there is no %s", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// blocks are the blocks of code of a language.
func blocks(text, language string) (all []string) {
	for _, block := range strings.Split(text, "\n```"+language+"\n")[1:] {
		code, _, _ := strings.Cut(block, "\n```")
		all = append(all, code)
	}
	return all
}

// What the manual tells people to type is typed here.
func TestTheManualsCommands(t *testing.T) {
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("there is no %s", tool)
		}
	}
	p := start(t, "--token", "rporg_lab", "--pis", "2", "--devices", "20")
	script := strings.ReplaceAll(strings.Join(blocks(manual(t), "bash"), "\n"), "http://127.0.0.1:8080", p.url)
	command := exec.CommandContext(t.Context(), "bash", "-euxo", "pipefail", "-c", script)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for token, want := range map[string]int{"rporg_shops": http.StatusUnauthorized, "rporg_rotated": http.StatusOK, "rporg_lab": http.StatusOK} {
		if status, _ := p.get("/organisation/devices", token); status != want {
			t.Errorf("%s is answered %d, want %d", token, status, want)
		}
	}
}

func TestTheManualHasEverything(t *testing.T) {
	text := manual(t)
	mentions := func(what, word string) {
		t.Helper()
		if !strings.Contains(text, word) {
			t.Errorf("docs/simulator.md does not mention %s %s", what, word)
		}
	}
	var help bytes.Buffer
	if _, err := parse([]string{"--help"}, &help); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`(?m)^  -(\S+)`).FindAllStringSubmatch(help.String(), -1) {
		mentions("the flag", "`--"+found[1])
	}
	for _, of := range []any{connectsim.Change{}, connectsim.Page{}, connectsim.Fault{}} {
		for field := range reflect.TypeOf(of).Fields() {
			mentions("the field", "`"+field.Name+"`")
		}
	}
	p := start(t)
	_, index := p.get("/_sim/", "")
	for line := range strings.Lines(index) {
		path, _, _ := strings.Cut(strings.Fields(line)[1], "/{")
		mentions("the endpoint", path)
	}
}

func TestTheManualsFaults(t *testing.T) {
	examples := regexp.MustCompile("`(\\{\"[^`]*\\})` \\|\n").FindAllStringSubmatch(section(t, "Faults"), -1)
	if len(examples) < 15 {
		t.Fatalf("there are %d examples", len(examples))
	}
	for _, example := range examples {
		var fault connectsim.Fault
		if err := json.Unmarshal([]byte(example[1]), &fault); err != nil {
			t.Errorf("%s: %v", example[1], err)
		}
	}
}

func TestTheManualsSeed(t *testing.T) {
	seed, err := connectsim.ReadSeed(strings.NewReader(blocks(section(t, "Seeds"), "json")[0]))
	if err != nil {
		t.Fatal(err)
	}
	if pis, err := connectsim.New(connectsim.Options{}).Seed(seed); err != nil || len(pis) != 1 {
		t.Errorf("%v: %v", pis, err)
	}
	p := start(t, "--token", "rporg_lab", "--seed", write(t, "seed.json", blocks(section(t, "Seeds"), "json")[0]))
	if got := p.names("/organisation/devices", "rporg_lab"); got != "cellar lobby shop-window" {
		t.Errorf("there is %s", got)
	}
}
