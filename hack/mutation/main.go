// SPDX-License-Identifier: Apache-2.0

// Command mutation changes every decision of the core in turn, and lists the changes that no test of
// the package notices. explained.txt says of some why they make no difference; any other fails the run.
package main

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// target is what is changed: a package, or some of its files.
type target struct {
	dir   string
	files []string // empty: all
}

// core is what decides. What only carries decisions out is tested by stories against a real API
// server, which a mutation run does not reach.
var core = []target{
	{dir: "internal/connectclient/budget"},
	{dir: "internal/controller/lifecycle", files: []string{
		"create.go", "expectations.go", "finalize.go", "freshness.go", "health.go", "intent.go", "memory.go", "metadata.go", "observation.go",
		"organisation.go", "outcome.go", "ownership.go", "pace.go", "pass.go", "reconciler.go", "record.go", "status.go", "values.go",
	}},
	{dir: "internal/controller/fleetrollout", files: []string{
		"admission.go", "batches.go", "child.go", "events.go", "failures.go", "ledger.go", "membership.go", "plan.go", "revision.go",
		"rollback.go", "schedule.go", "status.go",
	}},
	{dir: "internal/controller/deployment", files: []string{"outcome.go"}},
	{dir: "internal/controller/authkey", files: []string{"issued.go", "state.go"}},
}

//go:embed explained.txt
var explained string

func main() {
	if filepath.Base(os.Args[0]) == "go" {
		os.Exit(goCommand(os.Args[1:]))
	}
	only := flag.String("only", "", "a regular expression of the packages and files to change, instead of all")
	flag.Parse()
	lived, err := run(regexp.MustCompile(*only))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if lived > 0 {
		os.Exit(1)
	}
}

// run changes the core, and returns how many changes live without an explanation.
func run(only *regexp.Regexp) (lived int, err error) {
	work, err := os.MkdirTemp("", "mutation-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	reasons := reasons()
	for _, t := range core {
		t.files = slices.DeleteFunc(t.sources(), func(file string) bool { return !only.MatchString(filepath.Join(t.dir, file)) })
		if len(t.files) == 0 {
			continue
		}
		mutants, err := t.change(work)
		if err != nil {
			return 0, err
		}
		lived += report(t, mutants, reasons)
	}
	return lived, nil
}

// sources are the files of the target.
func (t target) sources() []string {
	if len(t.files) > 0 {
		return slices.Clone(t.files)
	}
	all, _ := filepath.Glob(filepath.Join(t.dir, "*.go"))
	var sources []string
	for _, file := range all {
		if !strings.HasSuffix(file, "_test.go") {
			sources = append(sources, filepath.Base(file))
		}
	}
	return sources
}

// mutant is a change, as gremlins reports it.
type mutant struct {
	file         string
	Type, Status string
	Line, Column int
}

// change runs gremlins over the target.
func (t target) change(work string) ([]mutant, error) {
	gremlins, err := exec.Command("go", "tool", "-modfile=tools/checks/go.mod", "-n", "gremlins").Output()
	if err != nil {
		return nil, fmt.Errorf("build gremlins: %w", err)
	}
	env, err := environment(work, t.dir)
	if err != nil {
		return nil, err
	}
	result := filepath.Join(work, "result.json")
	args := []string{
		"unleash", "./" + t.dir, "--workers", "2", "--timeout-coefficient", "10", "--output", result, "--output-statuses", "lt",
		"--invert-logical", "--invert-loopctrl",
		"--invert-negatives=false", // arithmetic does the same to every minus
	}
	all, _ := filepath.Glob(filepath.Join(t.dir, "*.go"))
	for _, file := range all {
		if file = filepath.Base(file); !slices.Contains(t.files, file) {
			args = append(args, "--exclude-files", "^"+regexp.QuoteMeta(file)+"$")
		}
	}
	cmd := exec.Command(strings.TrimSpace(string(gremlins)), args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("gremlins: %w", err)
	}
	return read(t, result)
}

func read(t target, result string) ([]mutant, error) {
	text, err := os.ReadFile(result)
	if err != nil {
		return nil, err
	}
	var content struct {
		Files []struct {
			Name      string `json:"file_name"`
			Mutations []mutant
		}
	}
	if err := json.Unmarshal(text, &content); err != nil {
		return nil, err
	}
	var mutants []mutant
	for _, file := range content.Files {
		for _, m := range file.Mutations {
			m.file = filepath.Join(t.dir, filepath.Base(file.Name))
			mutants = append(mutants, m)
		}
	}
	slices.SortFunc(mutants, func(a, b mutant) int {
		return cmp.Or(strings.Compare(a.file, b.file), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), strings.Compare(a.Type, b.Type))
	})
	return mutants, nil
}

// report prints the changes that live without an explanation, and the explanations that nothing needs.
func report(t target, mutants []mutant, reasons map[string]string) (lived int) {
	count, needed := map[string]int{}, map[string]bool{}
	for _, m := range mutants {
		switch m.Status {
		case "LIVED", "NOT COVERED":
			if reasons[m.String()] != "" {
				count["EXPLAINED"]++
				needed[m.String()] = true
				continue
			}
			lived++
			fmt.Printf("%s  # %s, line %d\n", m, m.Status, m.Line)
		}
		count[m.Status]++
	}
	for change := range reasons {
		file, _, _ := strings.Cut(change, ": ")
		if filepath.Dir(file) == t.dir && slices.Contains(t.files, filepath.Base(file)) && !needed[change] {
			fmt.Println("explained, but noticed:", change)
		}
	}
	fmt.Printf("%s: %d noticed, %d took too long, %d do not compile, %d are explained, %d live\n", t.dir,
		count["KILLED"], count["TIMED OUT"], count["NOT VIABLE"], count["EXPLAINED"], lived)
	return lived
}

// String names a change by the line, in which what is changed is between braces: that stays the same
// when other lines change.
func (m mutant) String() string {
	text, err := os.ReadFile(m.file)
	lines := strings.Split(string(text), "\n")
	if err != nil || m.Line > len(lines) {
		return fmt.Sprintf("%s:%d:%d %s", m.file, m.Line, m.Column, m.Type)
	}
	line := lines[m.Line-1]
	at := min(m.Column-1, len(line))
	token := line[at : at+len(operator.FindString(line[at:]))]
	return fmt.Sprintf("%s: %s{%s}%s: %s", m.file, strings.TrimLeft(line[:at], " \t"), token, line[at+len(token):], m.Type)
}

var operator = regexp.MustCompile(`^([-+*/%&|<>=!^]+|\w+)`)

// reasons reads why some changes may live: each stands at the beginning of a line, and why in the
// lines after it, which are indented.
func reasons() map[string]string {
	reasons, change := map[string]string{}, ""
	for line := range strings.Lines(explained) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "":
		case strings.HasPrefix(line, "\t"):
			reasons[change] += line
		default:
			change = line
		}
	}
	return reasons
}
