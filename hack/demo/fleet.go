// SPDX-License-Identifier: Apache-2.0

package main

import "context"

func (d *demo) startFleet(context.Context) {}
