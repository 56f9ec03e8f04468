// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/cover"
)

// realGo names the environment variable that says where the go command is.
const realGo = "MUTATION_GO"

// environment is that of gremlins: the go command that it finds is this program.
func environment(work, dir string) ([]string, error) {
	goPath, err := exec.LookPath("go")
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.Symlink(self, filepath.Join(work, "go")); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	memory, err := memory(dir)
	if err != nil {
		return nil, err
	}
	// A result from the cache would make the limit for a change that loops, which is a multiple of what
	// the tests take, nothing. Two workers have a processor each.
	return append(append(os.Environ(), memory...), realGo+"="+goPath, "PATH="+work+string(os.PathListSeparator)+os.Getenv("PATH"),
		"GOFLAGS=-count=1 -short -vet=off -ldflags=-s", "GOMAXPROCS=1"), nil
}

// goCommand is the go command as gremlins sees it. It mends three things: conditions after case are no
// statements, so that the coverage does not have them, and gremlins leaves them out; a change that does
// not compile is told apart from one that a test has noticed; and a run goes on where one before it was
// interrupted.
func goCommand(args []string) int {
	profile := slices.Index(args, "-coverprofile")
	switch {
	case profile >= 0:
		return runGo(args, args[profile+1])
	case args[0] == "test":
		return remembered(func() int { return runGo(args, "") })
	default:
		return runGo(args, "")
	}
}

// runGo is the go command itself, and what there is to mend of its outcome and of its coverage profile.
func runGo(args []string, profile string) int {
	cmd := exec.Command(os.Getenv(realGo), args...)
	out, err := cmd.CombinedOutput()
	_, _ = os.Stdout.Write(out)
	if profile != "" && err == nil {
		err = reach(profile)
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && strings.Contains(string(out), "[build failed]"):
		return 2 // gremlins: not viable
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// reach adds to a coverage profile the conditions of every switch that a test reaches.
func reach(profile string) (err error) {
	files, err := cover.ParseProfiles(profile)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(profile, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, file := range files {
		source, err := sourceOf(file.FileName)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, source, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if s, ok := n.(*ast.SwitchStmt); ok && covered(file, set.Position(s.Pos())) {
				for _, statement := range s.Body.List {
					clause, isClause := statement.(*ast.CaseClause)
					if !isClause {
						continue
					}
					from, to := set.Position(clause.Pos()), set.Position(clause.Colon)
					_, written := fmt.Fprintf(f, "%s:%d.%d,%d.%d 1 1\n", file.FileName, from.Line, from.Column, to.Line, to.Column)
					err = errors.Join(err, written)
				}
			}
			return true
		})
	}
	return err
}

// covered tells whether a test reaches the block that a place is in.
func covered(file *cover.Profile, at token.Position) bool {
	return slices.ContainsFunc(file.Blocks, func(b cover.ProfileBlock) bool {
		after := at.Line > b.StartLine || at.Line == b.StartLine && at.Column >= b.StartCol
		before := at.Line < b.EndLine || at.Line == b.EndLine && at.Column <= b.EndCol
		return b.Count > 0 && after && before
	})
}

// sourceOf is the file that a profile names by its package; gremlins runs in the module's root.
func sourceOf(name string) (string, error) {
	module, err := exec.Command(os.Getenv(realGo), "list", "-m").Output()
	return strings.TrimPrefix(name, strings.TrimSpace(string(module))+"/"), err
}
