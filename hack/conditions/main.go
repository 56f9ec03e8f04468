// SPDX-License-Identifier: Apache-2.0

// Conditions prints docs/conditions.md from the comments in api/v1alpha1, so that
// the list that users read is the one that is used: those of every kind, of each
// kind, and of events.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const preface = `# Conditions, reasons and events

Every resource has the condition ` + "`Ready`" + `. A second condition beside it tells tools that follow
[kstatus](https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus) (Argo CD, Flux) what
to make of it:

| ` + "`Ready`" + ` | beside it | meaning |
| --- | --- | --- |
| ` + "`True`" + ` | none | the remote side is as the spec says |
| ` + "`Unknown`" + ` | ` + "`Reconciling`" + ` | the operator works, or waits for something that will come |
| ` + "`False`" + ` | ` + "`Stalled`" + ` | a person must act, or it ended badly |

What is ` + "`Stalled`" + ` is looked at again hourly, and at once when the spec, the Secret or a reference
changes; but for a Deployment that has ended, which never changes. An outage or a spent budget
changes nothing that is known: what was Ready stays Ready. The reason says what to do, the message
the details.
`

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "conditions:", err)
		os.Exit(1)
	}
}

func run() error {
	files, err := filepath.Glob("api/v1alpha1/*_types.go")
	if err != nil {
		return err
	}
	var sections, events []*ast.GenDecl
	for _, name := range append([]string{"api/v1alpha1/conditions.go"}, files...) {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			block, ok := decl.(*ast.GenDecl)
			if !ok || block.Tok != token.CONST {
				continue
			}
			switch title := oneLine(block.Doc); {
			case strings.HasPrefix(title, "Reasons of events"):
				events = append(events, block)
			case strings.HasPrefix(title, "Condition types"), strings.HasPrefix(title, "Reasons of"):
				sections = append(sections, block)
			}
		}
	}
	fmt.Print(preface)
	for _, block := range append(sections, events...) {
		section(block)
	}
	return nil
}

// section prints one block of constants: its comment is the title, the comments of
// the constants are the rows.
func section(block *ast.GenDecl) {
	title, more, _ := strings.Cut(oneLine(block.Doc), ". ")
	fmt.Printf("\n## %s\n\n", strings.TrimSuffix(title, "."))
	if more != "" {
		fmt.Printf("%s\n\n", more)
	}
	fmt.Print("| | |\n| --- | --- |\n")
	for _, spec := range block.Specs {
		constant, ok := spec.(*ast.ValueSpec)
		if !ok || len(constant.Values) != 1 {
			continue
		}
		literal, ok := constant.Values[0].(*ast.BasicLit)
		if !ok {
			continue
		}
		value, err := strconv.Unquote(literal.Value)
		if err != nil {
			continue
		}
		fmt.Printf("| `%s` | %s |\n", value, meaning(constant))
	}
}

// meaning is the constant's comment without its Go name.
func meaning(constant *ast.ValueSpec) string {
	text := strings.TrimPrefix(oneLine(constant.Doc), constant.Names[0].Name)
	return strings.TrimLeft(text, ": ")
}

func oneLine(comment *ast.CommentGroup) string {
	return strings.Join(strings.Fields(comment.Text()), " ")
}
